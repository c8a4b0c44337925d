"""StoredArrays: the arrays of a dataset in one place that graphs read and the host replaces."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow.python.eager.context import anonymous_name

Tree = Any


class StoredArrays:
    """A structure of arrays that is replaced as a whole.

    The tensors are the value of one resource, an optional, because a resource of its own for each
    array could be read between two writes: new inputs with old labels. What was read shares the
    memory, and stays as it is when the resource is written.

    Args:
      arrays: NumPy arrays or tensors in a structure without lists; they are copied.

    Attributes:
      spec: The structure, shapes and dtypes.
    """

    def __init__(self, arrays: Tree) -> None:
        tensors = tf.nest.map_structure(tf.convert_to_tensor, arrays)
        self.spec = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), tensors)
        # Raw operations: in `strategy.scope()` a tf.Variable would be mirrored, and tf.data
        # functions cannot read mirrored variables. The name lets the runtime free the memory with
        # the last graph or iterator that can read it.
        with tf.init_scope(), tf.device("CPU:0"):
            self._handle = tf.raw_ops.VarHandleOp(
                dtype=tf.variant, shape=[], shared_name=anonymous_name()
            )
        self.write(tensors)

    def write(self, arrays: Tree) -> None:
        """Replaces all arrays by others of the same spec. Context: on the host."""
        tf.nest.assert_same_structure(self.spec, arrays)
        with tf.init_scope(), tf.device("CPU:0"):
            components = [tf.convert_to_tensor(array) for array in tf.nest.flatten(arrays)]
            value = tf.raw_ops.OptionalFromValue(components=components)
            tf.raw_ops.AssignVariableOp(resource=self._handle, value=value)

    def share(self) -> StoredArrays:
        """Returns the arrays as they are now, in the same memory. Context: on the host."""
        with tf.init_scope(), tf.device("CPU:0"):
            return StoredArrays(self.read())

    def write_from(self, other: StoredArrays) -> None:
        """Takes over the arrays of another one, in the same memory. Context: on the host."""
        with tf.init_scope(), tf.device("CPU:0"):
            self.write(other.read())

    def read(self) -> Tree:
        """Returns the tensors. Context: graph, or on the host."""
        value = tf.raw_ops.ReadVariableOp(resource=self._handle, dtype=tf.variant)
        specs = tf.nest.flatten(self.spec)
        tensors = tf.raw_ops.OptionalGetValue(
            optional=value,
            output_types=[spec.dtype for spec in specs],
            output_shapes=[spec.shape for spec in specs],
        )
        return tf.nest.pack_sequence_as(self.spec, tensors)
