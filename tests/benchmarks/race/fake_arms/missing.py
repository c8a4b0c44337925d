"""Its framework is not installed."""

import no_such_framework

Arm = no_such_framework.Arm
