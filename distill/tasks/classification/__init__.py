"""Classification: built-in digits or a folder of pictures, and a small network."""

from hessrank.distill.tasks.classification.digits import load_digits
from hessrank.distill.tasks.classification.image_folder import load_image_folder
from hessrank.distill.tasks.classification.metrics import Top1
from hessrank.distill.tasks.classification.network import ConvBlock, DigitNet
from hessrank.distill.tasks.classification.pictures import ClassifiedPictures, LabeledPictures, RandomPictures
from hessrank.distill.tasks.classification.task import ClassificationTask

__all__ = [
    "ClassificationTask",
    "ClassifiedPictures",
    "ConvBlock",
    "DigitNet",
    "LabeledPictures",
    "RandomPictures",
    "Top1",
    "load_digits",
    "load_image_folder",
]
