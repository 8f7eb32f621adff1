/* place_nbd.h: what a place of a remote NBD export says:
 *
 *     nbd://HOST[:PORT]/EXPORT	nbd+unix:///EXPORT?socket=PATH
 *     nbds://[USER@]HOST[:PORT]/EXPORT, nbds+unix://[USER@]/EXPORT?socket=PATH
 *
 * The same words as a WHERE (where.h) that serves it, and those of libnbd's
 * URIs for keys: tls-certificates, tls-psk-file. */
#ifndef OBJMAP_PLACE_NBD_H
#define OBJMAP_PLACE_NBD_H

#include "src/place.h"

#define NBD_CONNECTIONS_DEFAULT 4
#define NBD_CONNECTIONS_MAX	16

struct nbd_place {
	bool tls;
	char *user;		/* of a pre-shared key; NULL: not named */
	char *host, *port;	/* TCP: a name or an address, without brackets */
	char *socket;		/* UNIX: absolute; NULL: TCP */
	char *export_name;	/* "" unless given */
	char *certificates;	/* folder, absolute; NULL: those of the system */
	char *psk_file;		/* absolute; NULL: certificates are used */
	bool verify_peer;	/* the server's certificate is checked */
	unsigned int connections;
};

/* Whether the scheme of @place is one of the four. */
bool place_is_nbd(const struct place *place);

/* -EINVAL, logged with what to write instead.  *nbd needs no freeing then. */
int nbd_place_parse(const struct place *place, struct nbd_place *nbd);
void nbd_place_free(struct nbd_place *nbd);

#endif
