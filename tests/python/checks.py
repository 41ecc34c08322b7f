"""What the proofs are made of."""

from tidings_client import ApiError


class Mismatch(Exception):
    """Something is not as the page says."""


def check(holds, what):
    if not holds:
        raise Mismatch(what)


def equal(found, expected, what):
    check(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def fails(name, call, /, *arguments, **options):
    """Expects an error of that name; returns its fields."""
    try:
        call(*arguments, **options)
    except ApiError as error:
        equal(error.name, name, "the error")
        return error.fields
    raise Mismatch(f"expected {name}, and it was done")


def say(step, what):
    print(f"ok  {step:<18} {what}", flush=True)
