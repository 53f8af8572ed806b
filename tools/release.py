# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a folder that any web server can publish: zips, repository index, page, notes, checksums.

``index.json`` is Blender's own format of a static repository, written by Blender's own tool: who
adds its address in the preferences once gets the zip that fits, and updates. The same commit makes
the same bytes.
"""

import html
import json
import re
import shutil
from pathlib import Path
from string import Template

from tools import extension, wheels
from tools.environments import ROOT, SetupError, say
from tools.extension import Build

NO_ADDRESS = "ADDRESS"
CHECKSUMS = "SHA256SUMS"
PLATFORM_FOLDER = "extensions-platform"
"""Subfolder of the zips for extensions.blender.org; the index must not name them."""
_SYSTEMS = {
    "linux-x64": "Linux", "windows-x64": "Windows", "macos-arm64": "macOS (Apple silicon)",
    "macos-x64": "macOS (Intel)",
}  # fmt: skip
_BLENDERS = {
    "3.11": "4.2 to 5.0", "3.13": "5.1 and later", "3.14": "of distributions with Python 3.14",
}  # fmt: skip
_PAGE = ROOT / "tools" / "release_page.html"


def make(out: Path, *, address: str) -> None:
    """Make everything that is published.

    Args:
        out: Folder to write; an earlier release in it is replaced.
        address: Where the folder will be served.

    Raises:
        SetupError: The folder holds something else, or a zip cannot be made or is refused.
    """
    _empty(out)
    builds = [Build(target) for target in wheels.TARGETS]
    listed = [Build(build.target, for_platform=True) for build in builds]
    paths = []
    for build in (*builds, *listed):
        folder = out / PLATFORM_FOLDER if build.for_platform else out
        path = extension.make_zip(build, folder)
        extension.validate(path)
        say(f"  {path.name}")
        paths.append(path)
    write_index(out)
    (out / "index.html").write_text(page(out, builds, address), "utf-8")
    (out / "RELEASE_NOTES.md").write_text(notes(extension.version()), "utf-8")
    write_checksums(out)
    say("\n".join(["", *extension.size_table(paths), "", f"Publish what is in {out}"]))


def _empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        if not (out / CHECKSUMS).exists():
            raise SetupError(f"{out} is not empty and holds no earlier release; name another.")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)


def write_index(folder: Path) -> None:
    """Have Blender's tool write ``index.json`` for the zips in a folder, in a fixed order.

    Args:
        folder: Folder of the zips.

    Raises:
        SetupError: The tool failed, or found two zips for the same Blender.
    """
    said = extension.blender_tool("server-generate", f"--repo-dir={folder}")
    if "duplicates" in said or "error" in said.lower():
        raise SetupError(f"The index is not right:\n{said}")
    path = folder / "index.json"
    index = json.loads(path.read_text("utf-8"))
    index["data"].sort(key=lambda entry: entry["archive_url"])
    path.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n", "utf-8")


def page(folder: Path, builds: list[Build], address: str) -> str:
    """The page with the two ways to install.

    Args:
        folder: Folder of the zips.
        builds: The zips.
        address: Where the folder will be served.

    Returns:
        HTML.
    """
    index = json.loads((folder / "index.json").read_text("utf-8"))
    entries = {entry["archive_url"].removeprefix("./"): entry for entry in index["data"]}
    rows = []
    for build in builds:
        entry = entries[build.file_name]
        query = "&".join((  # Blender takes a zip that is dropped into its window by these
            "repository=./index.json",
            f"blender_version_min={entry['blender_version_min']}",
            f"platforms={build.target.platform}",
            f"python_versions={build.target.python}",
        ))  # fmt: skip
        link = html.escape(f"{build.file_name}?{query}")
        size = entry["archive_size"] / 1e6
        rows.append(
            f"<tr><td>{_SYSTEMS[build.target.platform]}</td>"
            f"<td>{_BLENDERS[build.target.python]}</td>"
            f'<td><a href="{link}">{build.file_name}</a></td><td>{size:.0f} MB</td></tr>'
        )
    text = Template(_PAGE.read_text("utf-8"))
    return text.substitute(
        version=extension.version(),
        address=html.escape(address.rstrip("/") + "/index.json"),
        rows="\n".join(rows),
    )


def notes(version: str) -> str:
    """The changelog's section of a version.

    Args:
        version: As the manifest has it.

    Returns:
        Markdown.

    Raises:
        SetupError: The changelog does not name it.
    """
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    found = re.search(rf"^## {re.escape(version)}\b.*?\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if found is None:
        raise SetupError(f"CHANGELOG.md says nothing of version {version}.")
    return f"# PTalker {version}\n\n{found[1].strip()}\n"


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file of a folder, as ``sha256sum -c`` reads them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{wheels.sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines), "utf-8")
