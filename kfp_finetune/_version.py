"""The version of the distribution, of the images and of the compiled pipelines."""

VERSION = "0.1.0"
