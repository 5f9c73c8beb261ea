"""Which of many volumes to annotate next, with the reason of each in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..core.ct_offset import in_hounsfield
from ..core.errors import Cancelled, InputError, in_words
from ..core.events import ignore, make_event
from ..core.geometry import Grid, Volume
from ..core.modality import MODALITIES
from ..core.model_folders import DEFAULT_MODELS
from ..core.options import AUTO
from ..core.trust import FINE, FOREIGN, worst
from ..features.extraction import FeatureSource
from ..inference.choosing import Choice, distances, farthest_order, usual_scale
from ..inference.evidence import Description, describe
from ..io.queries import Found, find_queries
from ..models.registry import Model, find_model
from .adapter_file import TrainedAdapter, content_hash
from .inputs import PathLike, as_volume, looks_like, require_known
from .runtime import Clock, Runtime
from .segmentation import segment
from .suggestions import NAMED, LeftOut, Suggestion, Suggestions

Query = PathLike | Volume | Found
UNUSUAL = 1.5
"""How many times as far as volumes usually are from the nearest other is far."""


def suggest(
    volumes: Iterable[Query],
    adapter: TrainedAdapter | PathLike | None = None,
    *,
    annotated: Iterable[Query] = (),
    model: PathLike | None = None,
    modality: str = AUTO,
    intensity_offset: float | None = None,
    runtime: Runtime | None = None,
) -> Suggestions:
    """Rank volumes by what annotating them would bring; no annotation of theirs is looked at.

    Each next volume is the one that is farthest, in the features of the foundation model, from
    all that are annotated; the first of all is the most typical one. With an adapter its
    supports count as annotated, and the reasons have the Dice to expect of it on each volume;
    volumes that are unlike the supports, of another body region for one, come last. One that
    can't be used costs no other.

    Args:
        volumes: image files, DICOM folders, folders of these, or volumes in memory.
        adapter: trained on what is annotated so far, or its file; None before there is one.
        annotated: images that are annotated already, beside the adapter's supports.
        model: as of :class:`AdaptOptions`; with an adapter, another installation of its model.
        modality, intensity_offset: as of :class:`AdaptOptions`; with an adapter, its own modality.
        runtime: device, cache, progress, cancelling. Features go into the cache, where a training
            or a segmentation finds them.

    Returns:
        all that can be used and are not annotated, the first to annotate first.

    Raises:
        InputError: there are no volumes, or they are of several modalities.
        ModelError: the model or the adapter can't be used.
        Cancelled: the user stopped.
    """
    pool, known = _candidates(volumes, "Volume"), _candidates(annotated, "Annotated volume")
    return rank(pool, known, adapter, Images(model, modality, intensity_offset), runtime)


@dataclass(frozen=True)
class Images:
    """What images are and which model they are for: see :func:`suggest`."""

    model: PathLike | None = None
    modality: str = AUTO
    offset: float | None = None

    def __post_init__(self) -> None:
        if self.modality not in (AUTO, *MODALITIES):
            choices = ", ".join((AUTO, *MODALITIES))
            raise InputError(f"The modality is one of {choices}, not {self.modality!r:.60}.")


def rank(
    pool: Sequence[Candidate],
    known: Sequence[Candidate],
    adapter: TrainedAdapter | PathLike | None,
    images: Images,
    runtime: Runtime | None = None,
    on_volume: Callable[[int, int], None] = lambda done, total: None,
) -> Suggestions:
    """:func:`suggest` of volumes that are read by whoever has them.

    Args:
        pool: to be ranked. known: annotated already. The others as there.
        on_volume: called with volumes done and in all.
    """
    runtime = runtime or Runtime()
    trained: TrainedAdapter | None = None
    if adapter is not None:
        trained = adapter if isinstance(adapter, TrainedAdapter) else TrainedAdapter.load(adapter)
    if not pool:
        raise InputError("Give at least one volume to rank: an image, or a folder of images.")
    for one in known:
        one.annotated = True
    model = images.model
    foundation = trained.find_model(model) if trained else find_model(model) if model else None
    images = replace(images, modality=trained.modality) if trained else images
    work = _Work(trained, images, runtime)
    clock = Clock(runtime.events)
    with clock.phase("read", len(pool) + len(known)):
        for candidate in (*known, *pool):
            candidate.attempt(work.look, candidate)
    supports = [s["content"] for s in trained.supports if s.get("content")] if trained else []
    _leave_out_known(pool, {one.content for one in known if not one.why}.union(supports))
    if trained and trained.evidence is not None:  # which has its supports already
        known = [one for one in known if one.content not in supports]
    usable = [one for one in (*known, *pool) if not one.why]
    if any(not one.why for one in pool):
        source = work.source(foundation, usable)
        with clock.phase("features", len(usable)):
            for done, candidate in enumerate(usable):
                on_volume(done, len(usable))
                candidate.attempt(work.describe, candidate, source)
    return _ranked(pool, known, trained)


@dataclass
class Candidate:
    """A volume on its way into the order.

    Attributes:
        name: what it is called. read: gives it, and may be called again.
        query: where it is, for the result; None where that says nothing.
        annotated: whether it is annotated already.
        why: it is left out for; empty where it is not. failed: whether it can't be used.
        grid, kind, content: once it was looked at. profile: once its features are known.
        judged: with an adapter, what that is expected to reach on it.
    """

    name: str
    read: Callable[[], Volume]
    query: PathLike | Volume | None = None
    annotated: bool = False
    why: str = ""
    failed: bool = False
    grid: Grid | None = None
    kind: str = ""
    content: str = ""
    profile: Description | None = None
    judged: _Judged | None = None

    def attempt(self, function: Callable[..., None], *args: object) -> None:
        """Work that may fail for this volume alone."""
        try:
            function(*args)
        except (Cancelled, BrokenPipeError):  # the user; whoever listens to the events
            raise
        except Exception as error:
            self.why, self.failed = str(in_words(error)), True

    @property
    def usable(self) -> bool:
        return not self.why and self.profile is not None


@dataclass(frozen=True)
class _Judged:
    """What an adapter is expected to reach on a volume, of the structure where that is least."""

    dice: float | None
    structure: str
    verdict: str
    reasons: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        return FOREIGN in self.reasons


def _candidates(given: Iterable[Query], title: str) -> list[Candidate]:
    """Volumes in files, folders and memory; those in memory are called by their number."""
    if isinstance(given, (str, bytes, os.PathLike, Volume, Found)):
        raise InputError("Give volumes as a list, also where there is only one.")
    found = []
    for number, query in enumerate(given, 1):
        if isinstance(query, Volume):
            name = f"{title} {number}"
            found.append(Candidate(name, partial(as_volume, query, name), query))
            continue
        for one in [query] if isinstance(query, Found) else find_queries([query]):
            found.append(Candidate(one.name, partial(as_volume, one.query), one.query))
    return found


class _Work:
    """What is done with each volume.

    Args:
        trained: the adapter, if there is one. images: of its modality then.
    """

    def __init__(self, trained: TrainedAdapter | None, images: Images, runtime: Runtime) -> None:
        self._trained, self._images, self._runtime = trained, images, runtime
        if trained is not None:
            # The second network of the best effort says nothing of what to expect.
            self._judge = replace(trained, companion=None)
            if trained.evidence is None:
                message = (
                    "The adapter's file keeps nothing of its supports, so that they do not count "
                    "as annotated: name their images as annotated. What Dice to expect is not "
                    "known either."
                )
                runtime.events(make_event("warning", message=message))

    def read(self, candidate: Candidate) -> Volume:
        """Its voxels, with known values. They are read twice: of many volumes not all are held."""
        self._runtime.check()
        return in_hounsfield(candidate.read(), self._images.modality, self._images.offset)

    def look(self, candidate: Candidate) -> None:
        """What must be known of all volumes before the features of any."""
        volume = self.read(candidate)
        for note in volume.notes:
            message = f"{candidate.name}: {note}"
            self._runtime.events(make_event("warning", message=message))
        candidate.grid, candidate.kind = volume.grid, looks_like(volume)
        candidate.content = content_hash(volume)

    def source(self, foundation: Model | None, usable: Sequence[Candidate]) -> FeatureSource:
        """Where features come from: with the adapter's preprocessing, or one that fits all.

        Raises:
            InputError: the volumes are of several modalities, or not of the model's.
        """
        if self._trained is not None:
            assert foundation is not None
            return self._runtime.source(foundation, self._trained.preprocessing)
        modality = self._images.modality
        if modality == AUTO:
            kinds = sorted({one.kind for one in usable})
            if len(kinds) > 1:
                raise InputError(
                    "Some volumes look like CT and others like MR. Give volumes of one kind, or "
                    "say which with --modality."
                )
            (modality,) = kinds
        if foundation is None:
            foundation = find_model(DEFAULT_MODELS[modality])
            event = make_event("model", id=foundation.entry.id, modality=modality)
            self._runtime.events(event)
        require_known(modality, foundation)
        grids = [one.grid for one in usable if one.grid is not None]
        fitted = foundation.entry.preprocessing[modality].fitted(grids)
        return self._runtime.source(foundation, fitted)

    def describe(self, candidate: Candidate, source: FeatureSource) -> None:
        """Its features in a few numbers, and what the adapter comes to on it."""
        volume = self.read(candidate)
        features = source(volume, candidate.name)
        trained = self._trained
        known = trained is not None and trained.evidence is not None
        levels = trained.adapter.levels if trained and known else range(len(features.levels))
        if trained is not None and known and not candidate.annotated:
            candidate.judged = self._judged(volume)
        candidate.profile = describe(features, levels, ())

    def _judged(self, volume: Volume) -> _Judged:
        result = segment(
            self._judge,
            volume,
            # What it would say of the result is no news of the volume.
            runtime=replace(self._runtime, events=ignore),
            model=self._images.model,
            transductive=False,
            intensity_offset=0.0,  # its values are known by now
        )
        entries = result.report["structures"]
        name = min(entries, key=lambda name: worst([entries[name]["trust"]]))
        trust = entries[name]["trust"]
        return _Judged(trust["dice"], name, trust["verdict"], tuple(trust["reasons"]))


def _leave_out_known(pool: Sequence[Candidate], annotated: Collection[str]) -> None:
    """What is annotated already is not to be annotated, and the same voxels not twice.

    Args:
        annotated: contents of volumes.
    """
    seen: dict[str, str] = {}
    for one in pool:
        if one.why:
            continue
        if one.content in annotated:
            one.why = "It is annotated already."
        elif one.content in seen:
            one.why = f"It has the voxels of {seen[one.content]}."
        else:
            seen[one.content] = one.name


def _ranked(
    pool: Sequence[Candidate], known: Sequence[Candidate], trained: TrainedAdapter | None
) -> Suggestions:
    usable = [one for one in pool if one.usable]
    alike = [one for one in usable if one.judged is None or not one.judged.foreign]
    foreign = [one for one in usable if one not in alike]
    annotated = [one.profile for one in known if one.usable and one.profile is not None]
    if trained is not None and trained.evidence is not None:
        annotated += trained.evidence.supports
    left_out = [LeftOut(o.name, o.query, o.why, o.failed) for o in (*known, *pool) if o.why]
    suggestions = list(_in_order(alike, annotated))
    for one in foreign:
        suggestions.append(
            Suggestion(
                len(suggestions) + 1,
                one.name,
                one.query,
                (f"{FOREIGN}; if it shows the same after all, annotate it early",),
                verdict=one.judged.verdict if one.judged else "",
            )
        )
    return Suggestions(tuple(suggestions), tuple(left_out))


def _in_order(
    candidates: Sequence[Candidate], annotated: Sequence[Description]
) -> Iterator[Suggestion]:
    own = [one.profile for one in candidates if one.profile is not None]
    if not own:
        return
    scale = usual_scale([*own, *annotated])
    between, to_known = distances(own, own, scale), distances(own, annotated, scale)
    close, usual = _to_nearest(between), _to_nearest(distances(annotated, annotated, scale))
    for place, choice in enumerate(farthest_order(between, to_known), 1):
        one, judged = candidates[choice.number], candidates[choice.number].judged
        followers = tuple(candidates[n].name for n in choice.followers)
        reasons = [_part(choice, followers, len(candidates), close)]
        reasons += _far(choice, to_known[choice.number], usual)
        if judged is not None:
            reasons += _outlook(judged)
        yield Suggestion(
            place,
            one.name,
            one.query,
            tuple(reasons),
            followers,
            choice.nearest,
            judged.dice if judged else None,
            judged.structure if judged else "",
            judged.verdict if judged else "",
        )


def _far(choice: Choice, to_known: np.ndarray, usual: float | None) -> list[str]:
    """Whether a volume is far from what is annotated, as long as nothing above it is nearer.

    Args:
        to_known: (m,) its distances from annotated volumes. usual: what these are from each other.
    """
    if usual is None or choice.nearest is None or choice.nearest < to_known.min():
        return []
    times = choice.nearest / max(usual, 1e-6)
    if times < UNUSUAL:
        return []
    return [f"{times:.1f} times as far from the annotated ones as these are from each other"]


def _outlook(judged: _Judged) -> list[str]:
    """What is to be expected of the adapter, where anything is known."""
    if judged.dice is None:
        return [f"{judged.structure}: {reason}" for reason in judged.reasons[:1]]
    text = f"expected Dice {judged.dice:.2f} ({judged.structure})"
    return [text if judged.verdict == FINE else f"{text}: {judged.reasons[0]}"]


def _to_nearest(between: np.ndarray) -> float | None:
    """How far volumes usually are from the nearest other (the median); None of fewer than two."""
    if len(between) < 2:
        return None
    return float(np.median((between + np.diag([np.inf] * len(between))).min(1)))


def _part(choice: Choice, followers: Sequence[str], count: int, close: float | None) -> str:
    """What a volume is among those that are to be ranked.

    Args:
        followers: names of those that it stands for. close: how far volumes usually are from the
            nearest other.
    """
    if count == 1:
        return "the only one"
    if choice.nearest is None:
        return f"the most typical of these {count} volumes"
    if not followers and close is not None and choice.nearest < UNUSUAL * close:
        return "adds little: resembles what is annotated or above it"
    unlike = "unlike what is annotated or above it"
    if not followers:
        return f"{unlike}, and no other is like it: look whether it shows the same anatomy"
    names = ", ".join([*followers[:NAMED], *(["..."] if len(followers) > NAMED else [])])
    others = "1 other is" if len(followers) == 1 else f"{len(followers)} others are"
    return f"{unlike}; {others} more like it ({names})"
