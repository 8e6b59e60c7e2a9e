"""Where files are kept: what is wrong there is told by what can be done about it."""

import errno

import pytest

from tracking.errors import ArtifactsAway, ArtifactsRefused, NoRoom
from tracking.room import Place

REMOTE = Place(is_remote=True, refusals=(LookupError,), absences=(Exception,))


@pytest.mark.parametrize(
    "place, fault, told",
    [
        (Place(), OSError(errno.ENOSPC, "full"), NoRoom),
        (Place(), OSError(errno.EDQUOT, "full"), NoRoom),
        (Place(), PermissionError(errno.EACCES, "no"), ArtifactsRefused),
        (Place(), OSError(errno.EROFS, "no"), ArtifactsRefused),
        (Place(), OSError(errno.EIO, "broken"), OSError),
        (Place(), FileNotFoundError(), FileNotFoundError),
        (REMOTE, PermissionError("AccessDenied"), ArtifactsRefused),
        (REMOTE, OSError(errno.EINVAL, "InvalidBucketName"), ArtifactsRefused),
        (REMOTE, OSError(errno.EBUSY, "SlowDown"), ArtifactsAway),
        (REMOTE, TimeoutError(), ArtifactsAway),
        (REMOTE, NotADirectoryError(), NotADirectoryError),
        (REMOTE, LookupError("credentials"), ArtifactsRefused),
        (REMOTE, RuntimeError("connection"), ArtifactsAway),
    ],
)
def test_place_tells_faults_apart(place: Place, fault: Exception, told: type[Exception]) -> None:
    """Full; refused, which no retry mends; away, which one may; of the path itself, which the caller knows more of."""
    with pytest.raises(Exception) as raised, place.used():  # noqa: PT011 -- its very type is what counts
        raise fault
    assert type(raised.value) is told or raised.value is fault
    assert isinstance(raised.value, told)
