"""Reference counts that stand still, for forked processes to share memory."""

import subprocess
import sys
import textwrap

import pytest

# In a process of its own: it is for good.
SCRIPT = """
    import functools, gc, sys, types
    from prefork._engine import make_immortal

    class Thing:
        def method(self, x=(1, "a constant of a default")):
            return "a constant of the code", x

    class Meta(type):
        pass

    class Made(metaclass=Meta):
        pass

    thing = Thing()
    held = (1, thing)
    plain = ("a text in a tuple", 12345678901)
    values = {"a key that is used once": ["an item of a list"]}
    gc.collect()  # untracks tuples of constants
    count = make_immortal((types.FunctionType, types.CodeType, type, str, int, tuple))

    def is_still(candidate):
        before = sys.getrefcount(candidate)
        more = [candidate] * 1000
        return sys.getrefcount(candidate) == before

    code = Thing.method.__code__
    still = [Thing, Made, Meta, Thing.method, code, code.co_consts, Thing.method.__defaults__, plain, *plain,
             *values, *values["a key that is used once"], "a constant of the code"]
    moving = [thing, held, values, Meta.__dict__, functools.partial(print)]
    print(count > 1000, all(map(is_still, still)), any(map(is_still, moving)))
    del thing, held, Thing, Made, Meta, still, moving, values
    gc.unfreeze(), gc.collect()
    print(Ellipsis)
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there are no such counts")
def test_counts_of_code_and_constants_stand_still_and_those_of_other_objects_do_not():
    assert run(SCRIPT) == ["True True False", "Ellipsis"]


def test_destructors_run_once_while_what_they_use_is_there_also_of_what_only_classes_hold():
    script = """
        import gc, os
        from prefork.base import exit_functions, shared_counts
        class Resource:
            def __init__(self, name):
                self.name = name
            def __del__(self):
                print(os.path.basename(self.name))
        one, two = Resource("one"), [Resource("two")]
        class Holder:
            held = Resource("three")
        def use(held=Resource("four")):
            pass
        exit_functions.note_destructors()
        shared_counts.keep_counts()
        gc.freeze()
        del one
        gc.unfreeze()
        exit_functions.run_destructors()
    """
    assert sorted(run(script)) == ["four", "one", "three", "two"]
