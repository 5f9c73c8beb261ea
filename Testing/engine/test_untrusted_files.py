"""Property tests: whatever a file of ours holds, it is what was written or a clear error.

Each changed document or file is read, and then says what the document says, or is refused in one
sentence. There is no third: no traceback, no hang, no silent difference.
"""

from __future__ import annotations

import functools
import json
import tempfile
import unittest
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
from hypothesis import given
from hypothesis import strategies as st
from odd_documents import changed, plain, spoilt
from old_files import OLD
from pretraining_world import description
from soak_profile import examples
from tiny_model import make_grid, make_labels, make_values, write_array

from FewShotSegLib.cli.describe import adapter_text
from FewShotSegLib.cli.describe_models import licence_text, model_text, models_text
from FewShotSegLib.core.adapter_header import KEY, read_header
from FewShotSegLib.core.checksums import write_sealed
from FewShotSegLib.core.errors import FewShotSegError, InputError, ModelError
from FewShotSegLib.core.job_protocol import kind_of, read_job
from FewShotSegLib.core.json_fields import parse_json
from FewShotSegLib.core.model_folders import EMBEDDED_FOLDER, read_entry
from FewShotSegLib.evaluation.benchmark.plan import read_plan
from FewShotSegLib.models.registry import ModelEntry
from FewShotSegLib.pipeline.adapter_file import TrainedAdapter, read_metadata
from FewShotSegLib.pretraining.assembly import read_assembly

ENTRIES = [json.loads(path.read_text("utf-8")) for path in sorted(EMBEDDED_FOLDER.glob("*.json"))]
JOBS = [json.loads(path.read_text("utf-8")) for path in sorted(OLD.glob("*.job.json"))]
PLANS = [
    json.loads(path.read_text("utf-8"))
    for path in sorted((Path(__file__).parents[1] / "benchmarks" / "plans").glob("*.json"))
]
FILES = [path.read_bytes() for path in sorted(OLD.glob("*.fseft"))]
HEADERS = [read_header(data, "x") for data in FILES]


class UntrustedTestCase(unittest.TestCase):
    """Writes a file and reads it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def read(
        self, path: Path, content: bytes | Any, load: Callable[[], Any], *errors: type[Exception]
    ) -> Any:
        """What is loaded from a file of this content; None where it is refused properly."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
        try:
            return load()
        except errors as error:
            text = str(error)
            self.assertRegex(text, r"^[^\n\r\x00-\x1f]+\.$")
            self.assertLess(len(text), 1500)
            return None

    def assert_says(self, said: Mapping[str, Any], document: Mapping[str, Any], *but: str) -> None:
        """Every field of the document is what was understood."""
        for key, value in document.items():
            if key not in but:
                self.assertEqual(plain(said[key]), value, key)

    def assert_within(self, said: Any, document: Any) -> None:
        """Equal, but for fields that the document leaves to their defaults."""
        if isinstance(document, dict):
            self.assertLessEqual(set(document), set(said))
            for key, value in document.items():
                self.assert_within(said[key], value)
        elif isinstance(document, list):
            self.assertEqual(len(said), len(document))
            for one, other in zip(said, document, strict=True):
                self.assert_within(one, other)
        else:
            self.assertEqual(said, document)


class JsonTest(UntrustedTestCase):
    @examples(150)
    @given(
        st.one_of(
            st.binary(max_size=200),
            st.recursive(
                st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=30,
            ).map(lambda value: json.dumps(value).encode()),
            spoilt([json.dumps(document).encode() for document in (*JOBS, ENTRIES[0])]),
        )
    )
    def test_bytes_are_plain_data_or_a_clear_error(self, data: bytes) -> None:
        got = self.read(self.folder / "x", data, lambda: [parse_json(data, "The file")], InputError)
        if got is not None:
            # What comes out goes in again: finite, Unicode, no field twice.
            text = json.dumps(got[0], allow_nan=False, ensure_ascii=False)
            self.assertEqual(json.loads(text.encode("utf-8")), got[0])
            self.assertEqual(got[0], json.loads(data.decode("utf-8-sig")))


class EntryTest(UntrustedTestCase):
    @examples(250)
    @given(changed(ENTRIES))
    def test_an_entry_is_as_it_says_or_refused(self, document: Any) -> None:
        path = self.folder / "x.json"
        entry = self.read(path, document, lambda: ModelEntry.read(path), ModelError)
        raw = self.read(path, document, lambda: read_entry(path), ModelError)
        self.assertEqual(entry is None, raw is None)
        if entry is None:
            return
        self.assert_says({**entry.to_json(), "weights": entry.weights.name}, document)
        for text in (model_text(entry), models_text([entry]), licence_text(entry, 5)):
            self.assertTrue(text)
        # What the panel reads of it.
        self.assertTrue(raw["architecture"]["name"])
        for modality in raw["modality"]:
            self.assertEqual(len(raw["preprocessing"][modality]["spacing"]), 3)


class HeaderTest(UntrustedTestCase):
    def write(self, document: Any, number: int, sealed: bool) -> bytes:
        """An old file's tensors under another header."""
        tensors = safetensors.torch.load(FILES[number])
        metadata = {KEY: json.dumps(document)}
        if not sealed:
            return safetensors.torch.save(tensors, metadata)
        write_sealed(self.folder / "x", safetensors.torch.save(tensors), metadata)
        return (self.folder / "x").read_bytes()

    @examples(250)
    @given(changed(HEADERS), st.sampled_from(range(len(FILES))), st.booleans())
    def test_a_header_is_as_it_says_or_refused(self, document: Any, n: int, sealed: bool) -> None:
        path = self.folder / "a.fseft"
        data = self.write(document, n, sealed)
        metadata = self.read(path, data, lambda: read_metadata(path), InputError)
        other = self.read(path, data, lambda: read_header(data, "x"), InputError)
        self.assertEqual(metadata, other)
        trained = self.read(path, data, lambda: TrainedAdapter.load(path), InputError, ModelError)
        if metadata is None:
            self.assertIsNone(trained)
            return
        self.assert_within(metadata, document)
        self.assertTrue(adapter_text(metadata))
        for support in metadata["supports"]:  # what the panel shows
            self.assertEqual(len(support["shape"]), 3)
            self.assertGreaterEqual(sum(support.get("sizes_mm3", {}).values()), 0)
        if trained is not None:
            but = {key for key in document if key not in (*HEADERS[0], "decoder")}
            but |= {"format", "trained_parameters", "preprocessing"}
            known = {key: value for key, value in document.items() if key not in but}
            self.assert_within(plain(trained.metadata()), known)

    @examples(250)
    @given(spoilt(FILES))
    def test_spoilt_bytes_without_a_seal(self, data: bytes) -> None:
        """Files of before there were seals: read as they are, or refused; never a traceback."""
        path = self.folder / "a.fseft"
        trained = self.read(path, data, lambda: TrainedAdapter.load(path), InputError, ModelError)
        if trained is not None:
            for tensor in trained.adapter.state_dict().values():
                self.assertTrue(bool(tensor.isfinite().all()))
            self.assertEqual(trained.metadata()["structures"], read_metadata(path)["structures"])


class SealedTest(UntrustedTestCase):
    sealed: list[bytes] = []

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        with tempfile.TemporaryDirectory() as folder:
            for number, data in enumerate(FILES):
                path = Path(folder) / f"{number}.fseft"
                path.write_bytes(data)
                TrainedAdapter.load(path).save(path)
                cls.sealed.append(path.read_bytes())

    @examples(250)
    @given(st.data())
    def test_any_change_is_reported(self, data: st.DataObject) -> None:
        content = data.draw(spoilt(self.sealed))
        path = self.folder / "a.fseft"
        trained = self.read(path, content, lambda: TrainedAdapter.load(path), InputError)
        if trained is not None:
            self.assertIn(content, self.sealed)


class JobTest(UntrustedTestCase):
    @examples(250)
    @given(changed(JOBS))
    def test_a_job_is_as_it_says_or_refused(self, document: Any) -> None:
        path = self.folder / "job.json"
        job = self.read(path, document, lambda: read_job(self.folder), InputError)
        if job is not None:
            head = {"caller": job[1], "format": 1, "kind": kind_of(job[0])}
            self.assert_within(plain({**asdict(job[0]), **head}), document)


class PlanTest(UntrustedTestCase):
    @examples(150)
    @given(changed(PLANS))
    def test_a_plan_is_as_it_says_or_refused(self, document: Any) -> None:
        path = self.folder / "plan.json"
        plan = self.read(path, document, lambda: read_plan(path), InputError)
        if plan is None:
            return
        self.assertEqual((plan.title, list(plan.shots)), (document["title"], document["shots"]))
        for method, given_ in zip(plan.methods, document["methods"], strict=True):
            given_ = {"method": given_} if isinstance(given_, str) else given_
            self.assert_says(asdict(method), given_)
            self.assertGreater(method.options.training.epochs, 0)
        for task, given_ in zip(plan.tasks, document["tasks"], strict=True):
            self.assertEqual(plain([asdict(draw) for draw in task.draws]), given_["draws"])
            self.assertEqual(task.name, given_["name"])


class AssemblyTest(UntrustedTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.data = Path(folder.name)
        grid = make_grid("straight")
        for seed in range(3):
            labels = make_labels(seed, grid)
            write_array(
                cls.data / "beans/images" / f"b{seed}.nii.gz", make_values(seed, labels), grid
            )
            write_array(cls.data / "beans/labels" / f"b{seed}.nii.gz", labels, grid)
            write_array(cls.data / "maps" / f"m{seed}.nii.gz", labels, grid)
        index = {"beans": {f"b{seed}": [4, 5] for seed in range(3)}}
        (cls.data / "index.json").write_text(json.dumps(index))
        cls.first = description()

    @examples(150)
    @given(changed([description()]))
    def test_an_assembly_is_as_it_says_or_refused(self, document: Any) -> None:
        path = self.folder / "assembly.json"
        load = functools.partial(read_assembly, path, folder=self.data)
        assembly = self.read(path, document, load, FewShotSegError)
        if assembly is None:
            return
        said = plain(assembly.to_json(with_cases=True))
        for key in ("classes", "architecture"):
            self.assertEqual(said[key], document[key])
        for key in ("training", "targets", "augmentation"):
            self.assert_says(said[key], document.get(key, {}))
        self.assertLessEqual(document["model"].items(), said["model"].items())
        for part, given_ in zip(said["data"], document["data"], strict=True):
            self.assert_says(part, {k: given_[k] for k in ("name", "modality", "labels")})

    def test_the_first_one_is_read(self) -> None:
        path = self.folder / "assembly.json"
        path.write_text(json.dumps(self.first))
        self.assertEqual(len(read_assembly(path, folder=self.data).data), 2)


if __name__ == "__main__":
    unittest.main()
