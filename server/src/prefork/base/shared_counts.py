"""Reference counts that do not change, so that forked processes go on sharing the pages of what they only use.

Each process makes it so of what it has before it forks others: the arbiter of its own code, a mold of the app's. What
a process has inherited in that state it does not have to write to again.
"""

import types

from prefork._engine import make_immortal

# None holds what has to be freed, but by attributes of a class or by a closure (see `exit_functions.run_destructors`).
SHARED_KINDS = (
    types.FunctionType, types.CodeType, type, property, classmethod, staticmethod, types.BuiltinFunctionType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
    types.ClassMethodDescriptorType, types.ModuleType, str, bytes, int, float, tuple,
)  # fmt: skip


def keep_counts() -> None:
    """Let the counts of all code and constants of this process stand still from now on: half of a further Django worker."""
    make_immortal(SHARED_KINDS)
