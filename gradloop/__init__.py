"""gradloop: a training engine for Keras models that gives the numbers of `keras.Model.fit`.

The parts are `gradloop.engine`, `gradloop.data`, `gradloop.models` and `gradloop.cli`. The modules
beside this file serve all of them and import the standard library alone.
"""

__version__ = "0.1.0"
