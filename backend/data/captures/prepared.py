# SPDX-License-Identifier: GPL-3.0-or-later
"""The prepared format of captured faces with their speech, one for all data sets.

A folder with ``manifest.json``, ``templates/SUBJECT.npy`` (float32, ``(V, 3)``),
``sequences/NAME.offsets.npy`` (``(T, V, 3)``, offsets from the subject's template divided by the
set's scale) and ``sequences/NAME.audio.npy`` (int16, 16 kHz, mono), and ``faces.npz`` where the
faces are known. Frame ``i`` is at ``i / fps`` seconds of the sound. Motion and sound may end at
different times. All files are plain arrays or JSON, no pickles, and are written atomically.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from backend.audio.rates import SAMPLE_RATE_HZ
from backend.checks import require, require_positive
from backend.errors import UserError
from backend.io import from_json, to_json, write_atomically, write_text

FORMAT_VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
Split = Literal["train", "validation", "test", "test_unseen", "unused"]
Precision = Literal["float16", "float32"]
_SAFE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_MAX_MANIFEST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the set: its path inside the folder, its size and its SHA-256."""

    path: str
    num_bytes: int
    sha256: str

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        require(
            len(parts) <= 2 and all(_SAFE_NAME.fullmatch(part) for part in parts),
            f"the path {self.path!r:.80} leaves the folder",
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """A person: name and face at rest. Training subjects are in the published order."""

    name: str
    template: StoredFile


@dataclass(frozen=True, slots=True)
class Label:
    """Identity and split of a sequence; see `Sequence`."""

    name: str
    subject: str
    sentence: str
    split: Split


@dataclass(frozen=True, slots=True)
class Sequence:
    """One recorded sentence.

    Attributes:
        name: Name of the sequence, unique in the set, ``SUBJECT_SENTENCE``.
        subject: Name of the person who speaks.
        sentence: Name of the sentence that is spoken.
        split: Split by the set's protocol; ``test_unseen`` is of people outside the training set.
        num_frames: Number of frames at the set's rate.
        num_samples: Number of samples of sound at 16 kHz.
        source_audio_rate_hz: Sample rate of the published sound.
        offsets: File of the motion.
        audio: File of the sound.
        notes: Sentences about anything unusual in the sequence.
    """

    name: str
    subject: str
    sentence: str
    split: Split
    num_frames: int
    num_samples: int
    source_audio_rate_hz: int
    offsets: StoredFile
    audio: StoredFile
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        require_positive(self, "num_frames", "num_samples", "source_audio_rate_hz")


@dataclass(frozen=True, slots=True)
class Problem:
    """A sequence that could not be used, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Contents of ``manifest.json``.

    Attributes:
        dataset: ``vocaset``, ``biwi``, ``3d-hdtf``, ``folder`` or ``synthetic``.
        protocol: Where the splits come from.
        fps_numerator: Numerator of the stored motion's frame rate.
        fps_denominator: Denominator of the stored motion's frame rate.
        source_fps: Frames a second of the published motion.
        filtering: Filter between the two rates; empty where they are equal.
        units: Unit of templates and offsets.
        metres_per_unit: Length of the unit; 0 where it is not known, or differs from head to head.
        num_vertices: Number of vertices ``V`` of every head.
        topology: Name of the mesh's topology; empty where it is not known.
        fingerprint: Hash of the faces, as in ``backend.heads.topology``; empty where they are not
            known.
        precision: Type of the stored offsets.
        scale: Factor that brings stored offsets to ``units``.
        faces: The file ``faces.npz`` (``face_corners``, ``face_sizes``), if the faces are known.
        audio_rate_hz: Sample rate of the stored sound, always 16000.
        subjects: People with a template.
        sequences: Sequences that could be prepared.
        missing: Names of published sequences that are not there.
        problems: Sequences that are there and could not be used.
        complete: Whether all is prepared; false while preparing, or after an interruption.
        format_version: Version of the format, always ``FORMAT_VERSION``.
    """

    dataset: str
    protocol: str
    fps_numerator: int
    fps_denominator: int
    source_fps: float
    filtering: str
    units: str
    metres_per_unit: float
    num_vertices: int
    topology: str
    fingerprint: str
    precision: Precision
    scale: float
    faces: tuple[StoredFile, ...] = ()
    audio_rate_hz: int = SAMPLE_RATE_HZ
    subjects: tuple[Subject, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    complete: bool = False
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        require(
            self.format_version == FORMAT_VERSION,
            f"format_version is {self.format_version}, expected {FORMAT_VERSION}",
        )
        require(
            self.audio_rate_hz == SAMPLE_RATE_HZ,
            f"audio_rate_hz is {self.audio_rate_hz}, expected {SAMPLE_RATE_HZ}",
        )
        require_positive(self, "fps_numerator", "fps_denominator", "num_vertices", "scale")
        known = {subject.name for subject in self.subjects}
        names = {sequence.name for sequence in self.sequences}
        require(len(names) == len(self.sequences), "two sequences have one name")
        strangers = sorted({sequence.subject for sequence in self.sequences} - known)
        require(not strangers, f"there are no templates of {', '.join(strangers)[:80]}")

    @property
    def fps(self) -> Fraction:
        """Frames a second of the stored motion, exact."""
        return Fraction(self.fps_numerator, self.fps_denominator)


@dataclass(frozen=True)
class PreparedSet:
    """A prepared data set on disk; arrays are mapped into memory, not read.

    Attributes:
        folder: Folder of the set.
        manifest: Contents of the set's ``manifest.json``.
        content_hash: Hash of the manifest, hence of all files; identifies the data of a training.
    """

    folder: Path
    manifest: Manifest
    content_hash: str

    def split(self, name: Split) -> list[Sequence]:
        """The sequences of one split, in the manifest's order."""
        return [sequence for sequence in self.manifest.sequences if sequence.split == name]

    def stored_offsets(self, sequence: Sequence) -> NDArray[np.floating]:
        """Memory map ``(T, V, 3)``, read-only; times ``manifest.scale`` it is in ``units``."""
        shape = (sequence.num_frames, self.manifest.num_vertices, 3)
        return self._map(sequence.offsets, shape, self.manifest.precision)

    def offsets(
        self, sequence: Sequence, start: int = 0, stop: int | None = None
    ) -> NDArray[np.float32]:
        """Offsets from the template in ``units``, frames ``start`` to ``stop``, ``(T, V, 3)``."""
        stored = self.stored_offsets(sequence)[start:stop]
        return stored.astype(np.float32) * np.float32(self.manifest.scale)

    def samples(self, sequence: Sequence) -> NDArray[np.float32]:
        """The sound, -1 to 1, 16 kHz, shape ``(num_samples,)``."""
        stored = self._map(sequence.audio, (sequence.num_samples,), "int16")
        return stored.astype(np.float32) / 32768.0

    def samples_to_motion_end(self, sequence: Sequence) -> NDArray[np.float32]:
        """The sound as in `samples`, followed by silence where the motion is longer."""
        samples = self.samples(sequence)
        num_samples = math.ceil(sequence.num_frames / float(self.manifest.fps) * SAMPLE_RATE_HZ)
        return np.pad(samples, (0, max(0, num_samples - len(samples))))

    def template(self, subject: str) -> NDArray[np.float32]:
        """A subject's face at rest.

        Args:
            subject: Name of the subject.

        Returns:
            Vertices in ``units``, shape ``(V, 3)``.

        Raises:
            KeyError: There is no such subject.
        """
        stored = {one.name: one.template for one in self.manifest.subjects}[subject]
        return self._map(stored, (self.manifest.num_vertices, 3), "float32")

    def faces(self) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
        """Corners and sizes of the polygons; None where they are not known."""
        for stored in self.manifest.faces:
            with np.load(self.folder / stored.path, allow_pickle=False) as data:
                return data["face_corners"], data["face_sizes"]
        return None

    def files(self) -> list[StoredFile]:
        """Every file but the manifest."""
        found = [*self.manifest.faces, *(one.template for one in self.manifest.subjects)]
        for sequence in self.manifest.sequences:
            found += [sequence.offsets, sequence.audio]
        return found

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Reads every file and compares its SHA-256.

        Args:
            progress: Called with the number of files read, and of all.

        Raises:
            UserError: A file was changed or is damaged.
        """
        files = self.files()
        for number, stored in enumerate(files):
            if _sha256(self.folder / stored.path) != stored.sha256:
                raise _changed(self.folder / stored.path)
            progress(number + 1, len(files))

    def _map(self, stored: StoredFile, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        path = self.folder / stored.path
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise _changed(path) from error
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise _changed(path)
        return array


def open(folder: Path | str, *, check_hashes: bool = False) -> PreparedSet:  # noqa: A001 - prepared.open
    """Opens a data set that ``python -m backend prepare`` made.

    Args:
        folder: Folder of the prepared set.
        check_hashes: Also read all files and compare their hashes, not only their sizes.

    Returns:
        The prepared set.

    Raises:
        UserError: The folder holds no prepared set, one of another format, an unfinished one, or
            one with changed files.
    """
    folder = Path(folder)
    manifest, content_hash = _read_manifest(folder)
    if not manifest.complete:
        raise UserError(f"Preparing {folder} was interrupted. Run the same command again.")
    prepared = PreparedSet(folder, manifest, content_hash)
    for stored in prepared.files():
        if not is_whole(folder, stored):
            raise _changed(folder / stored.path)
    if check_hashes:
        prepared.verify()
    return prepared


def read_unfinished(folder: Path) -> Manifest | None:
    """The manifest of a set that may be unfinished; None where there is none."""
    return _read_manifest(folder)[0] if (folder / MANIFEST_NAME).exists() else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes ``manifest.json``."""
    write_text(folder / MANIFEST_NAME, to_json(manifest) + "\n")


def finished_sequence(folder: Path, name: str) -> Sequence | None:
    """The record of a sequence that is written and whole, else None."""
    path = folder / "sequences" / f"{name}.json"
    try:
        sequence = from_json(Sequence, path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_done = is_whole(folder, sequence.offsets) and is_whole(folder, sequence.audio)
    return sequence if is_done else None


def write_sequence(
    folder: Path,
    label: Label,
    *,
    offsets: NDArray[np.floating],
    samples: NDArray[np.float32],
    source_audio_rate_hz: int,
    notes: tuple[str, ...] = (),
) -> Sequence:
    """Writes motion and sound, then the record that marks them as complete.

    Args:
        folder: Folder of the set.
        label: Identity and split of the sequence.
        offsets: Motion ``(T, V, 3)``, already divided by the scale, of the type to store.
        samples: Samples at 16 kHz, -1 to 1.
        source_audio_rate_hz: Sample rate of the published sound.
        notes: Sentences about anything unusual in the sequence.

    Returns:
        The record of the sequence.
    """
    sound = np.round(np.clip(samples, -1.0, 32767 / 32768) * 32768.0).astype(np.int16)
    base = f"sequences/{label.name}"
    done = Sequence(
        name=label.name,
        subject=label.subject,
        sentence=label.sentence,
        split=label.split,
        num_frames=len(offsets),
        num_samples=len(sound),
        source_audio_rate_hz=source_audio_rate_hz,
        offsets=write_array(folder, f"{base}.offsets.npy", offsets),
        audio=write_array(folder, f"{base}.audio.npy", sound),
        notes=notes,
    )
    write_text(folder / f"{base}.json", to_json(done) + "\n")
    return done


def write_array(folder: Path, name: str, array: NDArray[Any]) -> StoredFile:
    """Writes an array as ``.npy``."""
    return write_file(folder, name, lambda file: np.save(file, array, allow_pickle=False))


def write_file(folder: Path, name: str, save: Callable[[IO[bytes]], None]) -> StoredFile:
    """Writes a file of the set through ``save``, and returns its record with size and hash."""
    path = folder / name
    write_atomically(path, save)
    return StoredFile(name, path.stat().st_size, _sha256(path))


def is_safe_name(name: str) -> bool:
    """Whether a subject's or sequence's name can be a file name."""
    return _SAFE_NAME.fullmatch(name) is not None


def is_whole(folder: Path, stored: StoredFile) -> bool:
    """Whether a file is there with the right size."""
    path = folder / stored.path
    return path.is_file() and path.stat().st_size == stored.num_bytes


def _read_manifest(folder: Path) -> tuple[Manifest, str]:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise UserError(
            f"{folder} holds no prepared data. Make it with: python -m backend prepare vocaset "
            "--raw DIR --out DIR (or biwi, 3d-hdtf, folder)."
        )
    try:
        require(path.stat().st_size <= _MAX_MANIFEST_BYTES, "it is too large")
        raw = path.read_bytes()
        return from_json(Manifest, raw.decode()), hashlib.sha256(raw).hexdigest()[:16]
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or of another version ({error}). Prepare into an empty folder."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed(path: Path) -> UserError:
    return UserError(f"{path} is missing, damaged or was changed. Prepare the data set again.")
