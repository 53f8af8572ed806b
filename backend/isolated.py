# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command of the backend with nothing on Python's path but what is named.

The add-on starts it by its path, ``python -I -S backend/isolated.py WHEELS NUMPY serve …``: neither
the environment, nor the current folder, nor a package that happens to be installed can then bring
code into the process. Processes that the backend spawns run this file too, by the same arguments.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from types import ModuleType

_WINDOWS_LIBRARIES = ("vcruntime140.dll", "vcruntime140_1.dll", "msvcp140.dll", "msvcp140_1.dll")


class PackageFinder:
    """Finds single packages, each in a folder of which nothing else is found."""

    def __init__(self, folders: dict[str, str]) -> None:
        """Remember where the packages lie.

        Args:
            folders: Folder by the name of the package that lies in it.
        """
        self._folders = folders

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module, as Python's import asks of its finders.

        Args:
            name: Full name of the module.
            path: Folders of its package; None at the top level.
            target: Module that is loaded anew.

        Returns:
            Its spec; None where it is none of the packages.
        """
        if path is not None or name not in self._folders:
            return None
        return PathFinder.find_spec(name, [self._folders[name]], target)

    def find_distributions(
        self, context: DistributionFinder.Context | None = None
    ) -> Iterable[Distribution]:
        """Find a package's version, as ``importlib.metadata`` asks of Python's finders.

        Args:
            context: Name of the package.

        Returns:
            What is known of the package; nothing where it is none of these.
        """
        name = getattr(context, "name", None)
        if name not in self._folders:
            return ()
        place = DistributionFinder.Context(name=name, path=[self._folders[name]])
        return PathFinder.find_distributions(place)


def limit_path(wheels: str, numpy: str) -> None:
    """Let Python find the backend, the wheels and NumPy, besides what it finds already.

    Args:
        wheels: Folder of the unpacked wheels; empty where they are on the path.
        numpy: Folder in which NumPy lies; empty where it is on the path.
    """
    folders = {"backend": str(Path(__file__).resolve().parents[1])}
    if wheels:
        sys.path.append(wheels)
    if numpy:
        folders["numpy"] = numpy
    sys.meta_path.insert(0, PackageFinder(folders))


def load_windows_libraries() -> None:
    """Load the C++ library of Windows before that of Blender, which may be too old, is found.

    ONNX Runtime fails with releases before 14.40. Where Windows has none, Blender's is taken.
    """
    import ctypes

    blender = Path(sys.executable).resolve().parents[3]  # BLENDER/5.1/python/bin/python.exe
    system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
    for name in _WINDOWS_LIBRARIES:
        for folder in (system, blender, blender / "blender.crt"):
            if (folder / name).is_file():
                ctypes.CDLL(str(folder / name))
                break


def main() -> int:
    """Run the command that the arguments after the two folders name; returns its exit status."""
    if os.name == "nt" and sys.argv[1]:
        load_windows_libraries()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in __main__.py
    from backend.cli.main import main as run_command

    return run_command(sys.argv[3:])


limit_path(*sys.argv[1:3])
if __name__ == "__main__":
    sys.exit(main())
