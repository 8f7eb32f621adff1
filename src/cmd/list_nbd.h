/* list_nbd.h: `objmap list nbd://HOST`: what an NBD server exports. */
#ifndef OBJMAP_CMD_LIST_NBD_H
#define OBJMAP_CMD_LIST_NBD_H

#include "src/cmd/options.h"

/* @text begins with "nbd".  Returns an exit status. */
int list_exports(const struct options *options, const char *text);

#endif
