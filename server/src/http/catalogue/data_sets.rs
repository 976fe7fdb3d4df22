//! Codes about data sets: what keeps one from being mounted.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "data-set.not-offered",
        409,
        "A data set is not there for the container any more",
        "The container has a data set that was offered to a group which its owner has left, or that the operator offers \
         no more.",
        "Ask an operator, or make the container anew without the data set.",
    ),
    known(
        "data-set.unavailable",
        409,
        "The data set cannot be mounted",
        "Its directory on the host is not there, or not as a data set’s has to be: a directory with no symbolic link on \
         the way that every user may read.",
        "Tell an operator: `berth doctor` says which directory it is, and how to mend it.",
    ),
    known(
        "data-set.unknown",
        409,
        "The supervisor knows no such data set",
        "Server and supervisor have read different versions of the configuration: it was changed since one of them started.",
        "Tell an operator: they restart the service that was not restarted. Containers go on meanwhile.",
    ),
];
