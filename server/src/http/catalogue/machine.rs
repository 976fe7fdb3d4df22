//! Codes about the machine: supervisor, inventory, disk, addresses, id ranges, what is broken.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "internal",
        500,
        "Something is broken",
        "A defect, or a host that does not do what it should. Running containers are not touched.",
        "Give the operator the request’s id: the log has the detail under it.",
    ),
    known(
        "server.maintenance",
        503,
        "The machine is in maintenance",
        "An operator has said that nothing new is to be begun, and why. Running containers go on; looking, \
         stopping and removing work.",
        "Try again when it is over: the pages say so, and `GET /api/v1/maintenance`.",
    ),
    known(
        "supervisor.away",
        503,
        "The supervisor does not answer",
        "The program that makes containers is not running, or is being restarted. Running containers are \
         not touched.",
        "Try again in a moment. An operator looks at `systemctl status berth-supervisor`.",
    ),
    known(
        "supervisor.slow",
        503,
        "The supervisor has not answered in time",
        "The machine is overloaded. Whether it was done is not known yet; it is found out by itself.",
        "Look at how it stands in a moment, then ask again.",
    ),
    known(
        "supervisor.version",
        503,
        "Server and supervisor are of two versions",
        "One of the two was upgraded and the other has not been restarted since.",
        "An operator restarts both: `systemctl restart berth-supervisor berth`. Containers live on.",
    ),
    known(
        "inventory.busy",
        503,
        "The inventory is busy",
        "Too many wait to write or to read.",
        "Try again in a moment.",
    ),
    known(
        "inventory.read-only",
        503,
        "The inventory cannot be written",
        "The file system of the data directory is read-only, which kernels do after a disk’s error.",
        "Tell an operator. Running containers go on; nothing can be changed until it is mended.",
    ),
    known(
        "disk.full",
        507,
        "The disk is full",
        "The disk that holds images, containers and the inventory has no room.",
        "Remove images and containers that are not needed any more, or tell an operator.",
    ),
    known(
        "network.exhausted",
        507,
        "No address is left",
        "Every subnet of the pool (`runtime.network_pool`), or every address of your own subnet, is in use.",
        "Remove containers, or launch without a network. An operator can enlarge the pool.",
    ),
    known(
        "network.pool",
        422,
        "The network pool cannot be used",
        "The addresses in `runtime.network_pool` are none that containers can be given.",
        "An operator corrects the setting.",
    ),
    known(
        "network.nftables",
        503,
        "The firewall’s table cannot be made",
        "`nft` refused the rules that keep containers apart, so none is started with a network.",
        "An operator looks at `berth doctor` and the log.",
    ),
    known(
        "person.ids",
        507,
        "No id range is left",
        "Each person gets a range of ids on the host, for ever, and the block for them is used up.",
        "An operator enlarges the block (`runtime.id_first`, `runtime.id_last`).",
    ),
    known(
        "person.id",
        422,
        "No person’s id",
        "The supervisor does not take the id as a person’s.",
        "Tell an operator: server and supervisor disagree.",
    ),
    known(
        "person.group",
        422,
        "No group’s id",
        "The supervisor does not take the id as a group’s.",
        "Tell an operator: server and supervisor disagree.",
    ),
    known(
        "person.busy",
        409,
        "Containers of the person run",
        "The group of a person does not change while a container of theirs runs, and what they may use \
         together is changed by one at a time.",
        "Stop the containers first, or wait for the other change.",
    ),
    known(
        "person.record",
        503,
        "The record of people cannot be kept",
        "The supervisor could not write which ids are whose.",
        "Tell an operator: the disk may be full or read-only.",
    ),
    known(
        "person.unknown",
        409,
        "The supervisor does not know the owner",
        "The supervisor’s record of people is older than the inventory, as after a restored backup of one of \
         the two.",
        "Tell an operator, who restores `db/` and `state/` of the same moment.",
    ),
    known(
        "cgroup.layout",
        503,
        "The host’s control groups cannot be used",
        "A controller that limits need is missing, or is not where it should be.",
        "An operator looks at `berth doctor`, which says what is lacking and how to mend it.",
    ),
    known(
        "cgroup.timeout",
        503,
        "The kernel took too long",
        "Processes did not freeze, thaw or end in time, as when one waits for a disk that does not answer.",
        "Try again in a moment.",
    ),
    known(
        "cgroup.exhausted",
        507,
        "No control group is left",
        "The kernel makes no further control group.",
        "Remove containers, or tell an operator.",
    ),
];
