/* picture.h: where data is, as a picture in the terminal and as runs. */
#ifndef OBJMAP_CMD_PICTURE_H
#define OBJMAP_CMD_PICTURE_H

#include <jansson.h>
#include <stdint.h>

/* Data by unit: a bit per unit of the place, a chunk or some power of two. */
struct picture {
	uint64_t size;		/* bytes of the place */
	uint64_t unit;		/* bytes */
	uint64_t nr_units;
	unsigned char *data;	/* a bit per unit: has data */
};
/* -ENOMEM. */
int picture_open(struct picture *picture, uint64_t size, uint64_t unit);
void picture_mark(struct picture *picture, uint64_t index, uint64_t nr);
void picture_close(struct picture *picture);

/* @width: columns, 0: the terminal's, else 80.  Characters are UTF-8 where the
 * locale is, else ASCII. */
void picture_print(const struct picture *picture, unsigned int width);

/* [{"offset", "count", "data"}], the runs of units. */
json_t *picture_json(const struct picture *picture);

#endif
