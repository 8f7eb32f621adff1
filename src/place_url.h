/* place_url.h: places that are a URL of the web: http://HOST/PATH?QUERY. */
#ifndef OBJMAP_PLACE_URL_H
#define OBJMAP_PLACE_URL_H

#include "src/place.h"

bool place_is_url(const struct place *place);

/* Reads @place->text, all of which is the URL: it goes to path.  What follows its '?'
 * may be a key to the file, so text and base lose it.  -EINVAL, logged. */
int place_read_url(struct place *place);

#endif
