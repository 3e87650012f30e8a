"""Turns itself into a server program, with the rights and the lifetime that the program needs.

Run by file name, so that nothing of ours is imported: `python -I -S launcher.py MODE PARENT SIGNAL PROGRAM ...`.
A program of its own instead of `preexec_fn`, which may deadlock in a process that has threads (Python manual,
subprocess). It replaces itself by exec, so the server keeps the process id that the caller started.
"""

import ctypes
import os
import pwd
import sys
from enum import StrEnum
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1


class Mode(StrEnum):
    """Whose rights the program gets."""

    PLAIN = "plain"
    """The caller's."""
    NAMESPACE = "namespace"
    """The caller's, but in the program's eyes it is another user (Linux, user_namespaces(7))."""
    DEMOTE = "demote"
    """User nobody's, for good."""


def stand_in() -> int:
    """A user id other than root's that /etc/passwd has a name for: initdb ends without one."""
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        return next(user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0)


def enter_namespace() -> None:
    """Raises OSError where the kernel or the container forbids user namespaces."""
    user, group, seen_as = os.geteuid(), os.getegid(), stand_in()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare(CLONE_NEWUSER)")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{seen_as} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{seen_as} {group} 1")


def demote() -> None:
    """Become user nobody. Raises KeyError if there is none, PermissionError if we are not root."""
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def end_with(parent: int, wanted: int) -> None:
    """Have the kernel send the signal `wanted` when the parent dies, even by SIGKILL; exit if it is dead already.

    Set last: a change of user clears it (prctl(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, wanted, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("launcher: the parent is gone")


def main(arguments: list[str]) -> None:
    """Does not return: the process becomes the program. `PARENT` 0 means: outlive the parent."""
    mode, parent, wanted, program = Mode(arguments[0]), int(arguments[1]), int(arguments[2]), arguments[3]
    if mode is Mode.NAMESPACE:
        enter_namespace()
    elif mode is Mode.DEMOTE:
        demote()
    if parent:
        end_with(parent, wanted)
    os.execv(program, arguments[3:])


if __name__ == "__main__":
    main(sys.argv[1:])
