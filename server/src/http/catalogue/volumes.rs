//! Codes about volumes: what keeps one from being used, filled or removed.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "volume.unknown",
        409,
        "A volume is not on the disk",
        "The container has a volume that the supervisor does not know: it was removed on the host by hand.",
        "Start the container again: the volume is made anew, and empty. What was in it has to come from a copy.",
    ),
    known(
        "volume.in-use",
        409,
        "The volume is in use",
        "Containers of its owner’s have it, others that it is shared with run with it, or a run that uses it has not \
         ended.",
        "Stop and remove the containers that it names, then remove the volume. What others run ends when they end it; \
         share the volume no more, so that it does not start again.",
    ),
    known(
        "volume.not-shared",
        409,
        "A volume is not there for the container any more",
        "The container has a volume of somebody else’s, who has removed it or shares it with the container’s owner no \
         more.",
        "Ask its owner, or make the container anew without the volume.",
    ),
    known(
        "volume.read-only",
        409,
        "A volume is shared to be read",
        "The container was made to write to a volume of somebody else’s, and now that is shared to be read alone.",
        "Ask its owner, or make the container anew with the volume read-only.",
    ),
    known(
        "volume.moving",
        409,
        "The volume is being given to somebody else",
        "An operator hands it over, and all that is in it is being copied.",
        "Wait until it is done; then it is that person’s.",
    ),
    known(
        "volume.heir",
        422,
        "The volume is theirs",
        "A volume is handed over to somebody else than whose it is.",
        "Name another person.",
    ),
    known(
        "volume.unused",
        409,
        "Nothing is in the volume yet",
        "A volume of somebody else’s was never used, and whoever may only read it cannot be the first: a first use \
         fills it from the image.",
        "Ask its owner to start a container with it, or to put a file in it.",
    ),
    known(
        "volume.name-taken",
        409,
        "You have a volume of this name",
        "Names of volumes are unique among their owner’s.",
        "Choose another name, or remove the other volume.",
    ),
    known(
        "volume.too-many",
        507,
        "Too many volumes",
        "You have as many volumes as one person may (`containers.volumes_per_person_max`).",
        "Remove those that are not needed any more, or ask an operator for more.",
    ),
    known(
        "volume.busy",
        503,
        "Another container is filling the volume",
        "At its first use a volume is filled with what the image has at the place, and that takes long here.",
        "Try again in a moment.",
    ),
    known(
        "volume.sub-path",
        422,
        "The part of the volume cannot be mounted",
        "`sub_path` is not there, leads out of the volume, or is neither a directory nor an ordinary file.",
        "Make it in the volume first, by a container that has the whole of it; or mount the whole.",
    ),
    known(
        "volume.limit",
        507,
        "Too many volumes on the disk",
        "The person has as many volumes as the supervisor keeps for one, those being removed among them.",
        "Remove those that are not needed any more, and wait until they are gone.",
    ),
];
