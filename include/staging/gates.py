"""Asked of the buckets before a byte moves: whose are they, and what does the way between them cost?"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from include.catalog.weights import WeightsSpec
from include.errors import ConfigurationError
from include.staging.sources import Listing
from include.staging.target import Target

# Cards of the Hub that name no licence in particular.
UNNAMED_LICENSES = ("", "other", "unknown")
# USD per GB between AWS regions, list price, US regions (EC2 on-demand pricing page, "Data Transfer").
INTER_REGION_USD = Decimal("0.02")


def check_license(model: WeightsSpec, listing: Listing) -> Iterator[str]:
    """Compare the licence that the source states with the one that the model's spec was written for.

    Yields what a person should know where one of the two says nothing.

    :raises ConfigurationError: LicenseDiffers.
    """
    stated = str(listing.origin.get("license") or "")
    if not stated or stated.casefold() == model.license.casefold():
        return
    if not model.license:
        yield f"the source states licence {stated!r}; model {model.name!r} names none in the catalog"
    elif stated.casefold() in UNNAMED_LICENSES:
        yield f"the source's card says licence {stated!r}, the catalog {model.license!r}: compare its LICENSE file"
    else:
        raise ConfigurationError(
            "LicenseDiffers",
            f"license = {model.license!r} of model {model.name!r}, but the source states {stated!r}",
            fix="read the source's licence; if you may use it, write it into license",
        )


def check_place(target: Target, listing: Listing) -> Iterator[str]:
    """Check the target bucket; yields what a person should know about the way.

    :raises ConfigurationError: the bucket is absent, another account's, or closed to us.
    """
    region = target.region()
    wanted = target.context.region
    cost = f"about ${Decimal(listing.total_bytes) / 10**9 * INTER_REGION_USD:.2f} at list price"
    if region and wanted and region != wanted:
        yield (
            f"bucket {target.bucket} is in {region}, the cluster in {wanted}: every load of these weights crosses "
            f"regions, {cost} each; use a bucket in {wanted}"
        )
    if region and listing.region and listing.region != region:
        yield f"the source is in {listing.region}, the target in {region}: the copy costs {cost}"
