"""The step's KFP interface."""

from kfp import dsl

from kfp_finetune.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def initialize_model(
    uri: str,
    model: dsl.Output[dsl.Model],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    start_from: str = "model",
    name: str = "finetune",
    allow_patterns: list = [],  # noqa: B006  KFP takes the default from here
    ignore_patterns: list = [],  # noqa: B006
    reuse: bool = True,
    keep: int = 0,
    s3_endpoint: str = "",
    s3_region: str = "",
    s3_addressing_style: str = "auto",
    workspace: str = "/workspace",
):
    """Puts a model's configuration, weights and tokenizer on the volume, or finds what a series has made of it so far.

    Args:
        uri: A folder, hf://ORGANISATION/NAME[@REVISION], or s3://BUCKET/PREFIX, with safetensors weights.
        model: The files' manifest: where they lie, their sizes and checksums, the architecture.
        report: Family, parameters, dtypes, size and licence.
        metrics: Parameters and bytes.
        start_from: "model" takes uri; "latest" the newest export of the series, once it has one made from uri.
        name: The series, for start_from latest.
        allow_patterns: Files to take; empty for the configuration, *.safetensors and the tokenizer. Pickles (*.bin) are
            never taken unless they are named here.
        ignore_patterns: Files to leave out of them; empty for those in subfolders.
        reuse: Whether to take what is on the volume already; false fetches it again and mends what differs.
        keep: How many revisions of this source to keep on the volume; 0 for all.
        s3_endpoint: URL of the S3 server; empty for AWS_ENDPOINT_URL_S3 or Amazon's.
        s3_region: Region of the bucket; empty for AWS_REGION or the server's own.
        s3_addressing_style: "path", "virtual" or "auto".
        workspace: Where the volume is mounted.
    """
    from kfp_finetune.errors import clear_errors

    with clear_errors():
        from kfp_finetune.components.initialize_model.record import record_start
        from kfp_finetune.components.initialize_model.start import choose_start
        from kfp_finetune.sources.s3_client import S3Options

        start = choose_start(
            uri,
            workspace,
            start_from=start_from,
            name=name,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            reuse=reuse,
            keep=keep,
            s3=S3Options(s3_endpoint, s3_region, s3_addressing_style),
        )
        record_start(start, model, report, metrics)
