"""What ``--help`` says of the ``fewshotseg`` command and of each of its parts."""

from __future__ import annotations

OVERVIEW = """\
Segment a structure that no ready-made model knows, from a handful of annotated volumes.

A frozen foundation model gives features; a small adapter is trained on them with your 1 to 10
annotated volumes (the supports); new volumes (the queries) are segmented, and the size that the
structure has in the supports steadies the result (transduction).

  1. train    fewshotseg adapt --support ct1.nii.gz seg1.nii.gz --support ct2.nii.gz seg2.nii.gz \\
                  --structures 4=parotid_right,5=parotid_left --out parotids.fseft
  2. segment  fewshotseg segment --adapter parotids.fseft --out ct3_seg.nii.gz ct3.nii.gz
  3. check    fewshotseg evaluate --reference ct3_manual.nii.gz --prediction ct3_seg.nii.gz \\
                  --structures 4=parotid_right,5=parotid_left
"""
EPILOG = """\
Images: NIfTI, NRRD, MetaImage, or a folder with one DICOM series. Segmentations: a label map, a
Slicer segmentation (.seg.nrrd), a DICOM segmentation (.dcm), or a folder with one mask file a
structure.

Exit status: 0 done; 2 something is wrong with the input, the disk or the model, or the run was
interrupted (one sentence on standard error says what; no file is ever half written).
Features of the foundation model are cached in ~/.fewshotseg/cache (FEWSHOTSEG_HOME moves it), so
that the same volume never costs twice. Nothing leaves this computer, but for --dask.
"""
ADAPT = """\
Train an adapter on annotated volumes and write it as one .fseft file.

A structure that is not annotated in a support is unknown there, not background. The label values
of --structures are those of the results; in Slicer segmentations and folders of masks, structures
are found by name.

  fewshotseg adapt --support ct1.nii.gz seg1.nii.gz --support ct2.nrrd seg2.seg.nrrd \\
      --structures 4=parotid_right,5=parotid_left --out parotids.fseft

Supports may be drawn on some slices only: with --sparse all others are unknown. Draw every
structure on each of them. Evenly spread from end to end they show the structures' sizes too.

  fewshotseg adapt --support ct1.nii.gz few1.nii.gz --support ct2.nrrd few2.seg.nrrd \\
      --sparse --structures 4=parotid_right,5=parotid_left --out parotids.fseft

After a result was corrected it is one more support. Training goes on from the adapter:

  fewshotseg adapt --continue parotids.fseft --support ct1.nii.gz seg1.nii.gz \\
      --support ct2.nrrd seg2.seg.nrrd --support ct3.nii.gz ct3_corrected.nii.gz
"""
SEGMENT = """\
Segment volumes with a trained adapter. The result lies on the query's own grid; report.json beside
it says how large each structure is, what was expected, and what transduction changed.

  fewshotseg segment --adapter parotids.fseft --out results/ ct3.nii.gz ct4.nii.gz
  fewshotseg segment --adapter parotids.fseft --out results/ archive/

A folder is looked into: images, patients' folders, DICOM with several series. One volume that fails
costs no other; a run that was stopped goes on when it is started again. volumes.csv and
volumes.html in the folder list all results, worst first.
"""
EVALUATE = """\
Dice, HD95, surface Dice and volume error by structure, on the original grid. A structure that the
reference does not annotate is unknown, and not scored.

A folder that 'segment' wrote its results into is compared with a folder of references by name.

  fewshotseg evaluate --reference ct3_manual.nii.gz --prediction ct3_seg.nii.gz
  fewshotseg evaluate --reference manual/ --prediction results/ --csv scores.csv
"""
SUGGEST = """\
Which volumes to annotate next, and why: those that are most unlike what is annotated, in the
features of the foundation model. Before anything is annotated the first is the most typical volume.
With an adapter its supports count as annotated, and the table has the Dice to expect of it on each.

  fewshotseg suggest archive/
  fewshotseg suggest archive/ --annotated ct1.nii.gz --csv next.csv
  fewshotseg suggest archive/ --adapter parotids.fseft

A folder is looked into as 'segment' does. No annotation is looked at. The features are cached:
training and segmenting find them there.
"""
MODELS = """\
List the foundation models: what images they are for, their network, their licence, and whether
their weights are on this computer or how they come here. With an ID, tell all of one: what it was
trained on, the classes that it knows, whom to cite and where it is from.

'models add PATH' takes a model of yours as its training left it, and says what it found. What the
files don't tell it asks for, by the flag that says it. The files are only read: what is needed of
them is copied to ~/.fewshotseg/models.

  fewshotseg models add nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres
  fewshotseg models add FOLDER --name ours --modality MR --orientation RAS
"""
DOWNLOAD = """\
Fetch a foundation model's weights over https and put them into ~/.fewshotseg/models
(FEWSHOTSEG_HOME moves it). The licence, whom to cite and the size are shown, and you are asked
first. An
interrupted download goes on where it was. The file is checked against its published checksum; where
the publisher gives none, that of the first download is remembered and checked from then on.

  fewshotseg download btcv
  fewshotseg download btcv --accept-licence        in a script, once you have read it
"""
IMPORT = """\
Put a foundation model's weights from a file of yours into ~/.fewshotseg/models, for computers
without a network and for models that have to be fetched by hand. The file is checked as a download
is, and copied.

  fewshotseg import fseft ~/Downloads/model.pth
"""
REMOVE = """\
Delete a foundation model's weights from ~/.fewshotseg/models, with what was half downloaded and the
remembered checksum. Of a model of your own the entry goes too.
"""
INSPECT = "Show what an adapter was trained on, what it segments, and which sizes it expects."
DEMO = """\
Run the whole job: adapt on a few volumes, segment the next one with and without transduction,
print Dice before and after, and draw an overlay. Without --data on synthetic patients.
"""
PRETRAIN = """\
Train a foundation model on an assembly of data sets that each annotate only some classes (eq. 1):
a class counts only in volumes where it was annotated. The assembly is a JSON file that names the
data sets, their folders, and which of their label values is which class of one common template;
Documentation/how-to/pretrain-a-model.md has a complete example, and links to every field.

  fewshotseg pretrain assembly.json --out pretraining/
  fewshotseg pretrain assembly.json --out pretraining/ --resume        after an interruption
  torchrun --nproc-per-node 4 -m FewShotSegLib pretrain assembly.json --out pretraining/
  fewshotseg adapt --model pretraining/ID.json ...                     with the finished model

Ctrl-C stops within a second or so and keeps what was done. FOLDER then holds ID.json and
ID.safetensors (the model), curve.png, pretraining.json (every figure), the checkpoint, and cases/
(the prepared volumes; they can be removed once the model is finished).
"""
BENCHMARK = """\
Compare methods on drawn supports: every task, number of shots, method and draw that the plan names.
One row a query is kept as soon as it is known; the same command goes on where it was stopped.
Documentation/how-to/compare-methods.md explains the plan.

  fewshotseg benchmark plan.json --new DATA --structures 4=parotid_right,5=parotid_left
  fewshotseg benchmark plan.json                     runs it, into the folder plan/
  fewshotseg benchmark plan.json --minutes 30        starts no training after half an hour
  fewshotseg benchmark plan.json --render            draws table.md and the pictures again
"""
