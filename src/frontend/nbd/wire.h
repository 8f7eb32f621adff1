/* wire.h: the numbers of the NBD protocol, and bytes in its order.
 *
 * Source: the protocol text of the NetworkBlockDevice project (doc/proto.md).
 * All integers on the wire are big-endian and packed. */
#ifndef OBJMAP_NBD_WIRE_H
#define OBJMAP_NBD_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define NBD_MAGIC		0x4e42444d41474943ull	/* "NBDMAGIC" */
#define NBD_OPTION_MAGIC	0x49484156454f5054ull	/* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC	0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC	0x25609513u
#define NBD_SIMPLE_REPLY_MAGIC	0x67446698u
#define NBD_CHUNK_MAGIC		0x668e33efu	/* of a structured reply */

/* Lengths of fixed parts, in bytes. */
#define NBD_OPTION_BYTES	16	/* magic, option, length */
#define NBD_OPTION_REPLY_BYTES	20	/* magic, option, type, length */
#define NBD_REQUEST_BYTES	28
#define NBD_SIMPLE_REPLY_BYTES	16
#define NBD_CHUNK_BYTES		20
#define NBD_EXPORT_ZEROES	124	/* after EXPORT_NAME's answer, unless NO_ZEROES */
#define NBD_STRING_MAX		4096	/* the protocol's bound for every string */
#define NBD_PAYLOAD_MAX		(64u << 20)

enum nbd_handshake_flags {	/* the server's and the client's are the same */
	NBD_FIXED_NEWSTYLE = 1 << 0,
	NBD_NO_ZEROES	   = 1 << 1,
};

enum nbd_transmission_flags {
	NBD_HAS_FLAGS	      = 1 << 0,
	NBD_READ_ONLY	      = 1 << 1,
	NBD_SEND_FLUSH	      = 1 << 2,
	NBD_SEND_FUA	      = 1 << 3,
	NBD_ROTATIONAL	      = 1 << 4,
	NBD_SEND_TRIM	      = 1 << 5,
	NBD_SEND_WRITE_ZEROES = 1 << 6,
	NBD_SEND_DF	      = 1 << 7,
	NBD_CAN_MULTI_CONN    = 1 << 8,
	NBD_SEND_CACHE	      = 1 << 10,
	NBD_SEND_FAST_ZERO    = 1 << 11,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME	  = 1,
	NBD_OPT_ABORT		  = 2,
	NBD_OPT_LIST		  = 3,
	NBD_OPT_STARTTLS	  = 5,
	NBD_OPT_INFO		  = 6,
	NBD_OPT_GO		  = 7,
	NBD_OPT_STRUCTURED_REPLY  = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT  = 10,
};

#define NBD_REP_ERROR 0x80000000u
enum nbd_option_reply {
	NBD_REP_ACK		= 1,
	NBD_REP_SERVER		= 2,
	NBD_REP_INFO		= 3,
	NBD_REP_META_CONTEXT	= 4,
};
#define NBD_REP_ERR_UNSUP	(NBD_REP_ERROR | 1)
#define NBD_REP_ERR_INVALID	(NBD_REP_ERROR | 3)
#define NBD_REP_ERR_TLS_REQD	(NBD_REP_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN	(NBD_REP_ERROR | 6)
#define NBD_REP_ERR_TOO_BIG	(NBD_REP_ERROR | 9)

enum nbd_info_type {
	NBD_INFO_EXPORT	     = 0,
	NBD_INFO_NAME	     = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE  = 3,
};

enum nbd_command {
	NBD_CMD_READ	     = 0,
	NBD_CMD_WRITE	     = 1,
	NBD_CMD_DISC	     = 2,
	NBD_CMD_FLUSH	     = 3,
	NBD_CMD_TRIM	     = 4,
	NBD_CMD_CACHE	     = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
	NR_NBD_COMMANDS
};

enum nbd_command_flags {
	NBD_CMD_FLAG_FUA       = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE   = 1 << 1,
	NBD_CMD_FLAG_DF	       = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE   = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

#define NBD_CHUNK_DONE 1
enum nbd_chunk_type {
	NBD_CHUNK_NONE	       = 0,
	NBD_CHUNK_OFFSET_DATA  = 1,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR	       = 32769,
};

enum nbd_state_flags {		/* of base:allocation */
	NBD_STATE_HOLE = 1 << 0,
	NBD_STATE_ZERO = 1 << 1,
};

/* The protocol's own numbers: they are Linux's, fixed for every system. */
enum nbd_error {
	NBD_EPERM     = 1,
	NBD_EIO	      = 5,
	NBD_ENOMEM    = 12,
	NBD_EINVAL    = 22,
	NBD_ENOSPC    = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP   = 95,
	NBD_ESHUTDOWN = 108,
};

static inline uint16_t wire_get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return be16toh(value);
}

static inline uint32_t wire_get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return be32toh(value);
}

static inline uint64_t wire_get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return be64toh(value);
}

/* Each writes at @at and returns the place after it. */
static inline uint8_t *wire_put16(uint8_t *at, uint16_t value)
{
	value = htobe16(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static inline uint8_t *wire_put32(uint8_t *at, uint32_t value)
{
	value = htobe32(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static inline uint8_t *wire_put64(uint8_t *at, uint64_t value)
{
	value = htobe64(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

#endif
