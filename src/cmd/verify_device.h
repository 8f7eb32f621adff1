/* verify_device.h: `objmap verify` of a plain device: every byte can be read. */
#ifndef OBJMAP_CMD_VERIFY_DEVICE_H
#define OBJMAP_CMD_VERIFY_DEVICE_H

#include "src/cmd/options.h"
#include "src/place.h"

/* Returns an exit status. */
int verify_device(const struct options *options, const struct place *place);

#endif
