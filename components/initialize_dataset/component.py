"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def initialize_dataset(
    uri: str,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    config: str = "",
    allow_patterns: list = [],  # noqa: B006  KFP takes the default from here
    ignore_patterns: list = [],  # noqa: B006
    reuse: bool = True,
    keep: int = 0,
    s3_endpoint: str = "",
    s3_region: str = "",
    s3_addressing_style: str = "auto",
    workspace: str = "/workspace",
):
    """Puts a dataset's files on the volume, or finds them there.

    Args:
        uri: A path, hf://ORGANISATION/NAME[@REVISION][/FOLDER] or s3://BUCKET/PREFIX; with /*.jsonl, some files of it.
        dataset: The files' manifest: where they lie, their sizes and checksums, the splits.
        report: Rows, columns, lengths, duplicates and a few rows.
        metrics: Rows, duplicates, and rows with empty values.
        config: Configuration (subset) of a dataset on the Hub; empty for its default one.
        allow_patterns: Files to take, such as ["data/*.parquet"]; empty for all of the formats that can be read.
        ignore_patterns: Files to leave out of them.
        reuse: Whether to take what is on the volume already; false fetches it again and mends what differs.
        keep: How many revisions of this source to keep on the volume; 0 for all.
        s3_endpoint: URL of the S3 server; empty for AWS_ENDPOINT_URL_S3 or Amazon's.
        s3_region: Region of the bucket; empty for AWS_REGION or the server's own.
        s3_addressing_style: "path", "virtual" or "auto".
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.artifacts import record_figures, record_manifest, record_report
        from kfp_finetune.components.initialize_dataset.dataset import initialize_dataset as initialize
        from kfp_finetune.sources.s3_client import S3Options

        manifest = initialize(
            uri,
            workspace,
            config=config,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            reuse=reuse,
            keep=keep,
            s3=S3Options(s3_endpoint, s3_region, s3_addressing_style),
        )
        record_manifest(manifest, dataset)
        record_report(manifest, workspace, report)
        record_figures(manifest, ["rows", "duplicates", "rows_with_empty_values", "bytes"], metrics)
