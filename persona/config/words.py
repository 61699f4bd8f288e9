"""What may be typed as the class noun, as the token and as a prompt, or stand in a file; and how a command is typed."""

import codecs
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from persona.errors import BadPrompt, BadToken

MAX_PROMPT = 2000
"""Characters of a prompt; no text encoder reads nearly as many."""


def check_class(noun: str) -> None:
    """Make sure that a class noun can be read, and be told from a placeholder.

    Raises:
        BadToken: it is empty, far too long, or no word.
    """
    if not noun.strip():
        raise BadToken("--class is empty. Name what the photos show in a word or two: --class dog")
    if not noun.isprintable() or len(noun) > 64 or "[" in noun:
        raise BadToken(f"--class {noun[:64]!r} is no class noun. Name what the photos show: --class dog")


def check_token(token: str) -> None:
    """Make sure that a token is one word, which can be a part of a folder's name.

    Raises:
        BadToken: it is empty, has a space, is too long, or has letters that no folder's name has.
    """
    if not token or any(letter.isspace() for letter in token):
        raise BadToken(f"--token {token!r} must be one word without a space. Try --token sks, or leave it out.")
    if not token.isprintable() or len(token) > 32 or set(token) & set('[]/\\<>:"|?*') or token.startswith("."):
        raise BadToken(f"--token {token[:32]!r} must be a short word of letters and digits. Try --token sks.")


def is_text(prompt: str) -> bool:
    """Tell text from bytes that were none: Python passes those on as halves of characters."""
    return "\0" not in prompt and not any("\ud800" <= letter <= "\udfff" for letter in prompt)


def check_prompts(prompts: tuple[str, ...]) -> None:
    """Make sure that prompts can be drawn.

    Raises:
        BadPrompt: one is empty, far too long, or no text at all.
    """
    for prompt in prompts:
        if not prompt.strip():
            raise BadPrompt('A prompt is empty. Say what to draw: "a [V] dog on the beach"')
        check_text("The prompt", prompt)
        if "../" in prompt or "..\\" in prompt:
            raise BadPrompt(f"The prompt {prompt[:60]!r} looks like a path. Give a file of prompts with --prompts.")


def check_text(name: str, prompt: str) -> None:
    """Make sure that a prompt can be read; it may be nothing.

    Raises:
        BadPrompt: it is far too long, or no text at all; the message calls it by its name.
    """
    if not is_text(prompt):
        raise BadPrompt(f"{name} {prompt[:60]!a} holds characters that are no valid text. Type it again.")
    if len(prompt) > MAX_PROMPT:
        raise BadPrompt(f"{name} has {len(prompt)} characters; at most {MAX_PROMPT} are read. Shorten it.")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with its mark, which Windows PowerShell 5 writes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such text; what is to be done is said.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise ValueError("it is no UTF-8 text. Save it as UTF-8") from None


def command_line(words: Sequence[str]) -> str:
    """Return a command, or a part of one, as it is typed on this machine."""
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
