/* errors.c: what an error code of ours means, in words for people. */
#include <errno.h>
#include <string.h>

#include "src/errors.h"

const char *error_words(int error)
{
	switch (-error) {
	case 0:
		return "no reason was given";
	case EAGAIN:
		return "it is too busy";
	case EBADMSG:
		return "it is damaged";
	case ECANCELED:
		return "it was cancelled";
	case EILSEQ:
		return "it is not what was written";
	case EKEYEXPIRED:
		return "the credentials have expired";
	case ENODATA:
		return "it is not there";
	case ENOKEY:
		return "there are no credentials";
	case EPROTO:
		return "its server makes no sense";
	case EREMOTEIO:
		return "its server has failed";
	case ESHUTDOWN:
		return "it is being closed";
	case ESTALE:
		return "somebody else has replaced it or taken it over";
	case ETIME:
		return "the clocks differ too much";
	case ETIMEDOUT:
		return "no answer came in time";
	case EUCLEAN:
		return "it is incomplete";
	default:
		return strerror(-error);
	}
}

bool error_is_no_room(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}
