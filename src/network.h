/* network.h: file systems that are another machine's. */
#ifndef OBJMAP_NETWORK_H
#define OBJMAP_NETWORK_H

struct statfs;

/* The kind of network file system that @fs is of, or NULL: locks, rename and
 * fsync there are another machine's word.  FUSE is none of them, and may still
 * be one: nobody can tell sshfs from a local file system. */
const char *network_file_system(const struct statfs *fs);

#endif
