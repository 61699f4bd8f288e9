"""What can go wrong in a way that the user can put right.

* PersonaError
  - BadOption: an option out of its bounds, or options that contradict each other
    - BadPrompt: a prompt that cannot be drawn
    - BadToken: an identity token or a class noun that cannot stand for the subject
  - BadPhotos: the photos cannot be read, or there are none
  - BadBase: the base model is missing, damaged, or of a kind that is not supported
  - BadPersona: the folder is no persona, is damaged, or was made for another base
  - Busy: another run holds the folder
  - NoSpace: the disk is full
  - NoMemory: the memory is too small, whatever is done to need less of it
  - Diverged: the loss is NaN or infinite

Every message is one or two lines: what is wrong, and how to mend it. Whatever else is raised is a bug of ours.
"""

import errno


class PersonaError(Exception):
    """Base of all errors that are shown to the user without a traceback.

    Attributes:
        told: whether it is another process that shows it.
    """

    told = False


class BadOption(PersonaError):
    """An option is out of its bounds, or contradicts another."""


class BadPrompt(BadOption):
    """A prompt cannot be drawn."""


class BadToken(BadOption):
    """An identity token or a class noun cannot stand for the subject."""


class BadPhotos(PersonaError):
    """The photos cannot be read, or there are none."""


class BadBase(PersonaError):
    """The base model is missing, damaged, or of a kind that is not supported."""


class BadPersona(PersonaError):
    """The folder is no persona, is damaged, or was made for another base."""


class Busy(PersonaError):
    """Another run holds the folder."""


class NoSpace(PersonaError):
    """The disk is full."""


class NoMemory(PersonaError):
    """The memory is too small, whatever is done to need less of it."""


class Diverged(PersonaError):
    """The loss is NaN or infinite."""


def out_of_space(error: Exception) -> bool:
    """Tell whether an error means that the disk is full; safetensors and NumPy say it in words alone."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # The third is Windows in whatever language, the last two are NumPy.
    told = ("No space left", "quota exceeded", "os error 112", "Not enough free space", " requested and ")
    return any(words in str(error) for words in told)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that the device, or the machine, has too little memory.

    On a CPU and on Apple's GPUs torch raises a plain RuntimeError; files that are mapped into memory have errors of
    their own.
    """
    told = str(error).lower()
    named = "OutOfMemory" in type(error).__name__  # torch's own, which would take seconds to import
    # The last two are cuBLAS and cuDNN, and Windows in whatever language.
    words = ("t allocate memory", "out of memory", "not enough memory", "_alloc_failed", "error 1455")
    return isinstance(error, MemoryError) or named or any(one in told for one in words)
