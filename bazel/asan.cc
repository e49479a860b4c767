// UCX 1.13.1 forgets the three arrays of a hash table, 100 bytes, when a shared-memory endpoint
// cannot be made because its peer has gone (uct_mm_ep_t_new). Only the library can be named: it has
// no frame pointers, so LeakSanitizer sees no more of the stack than that one unnamed frame. What
// we could forget ourselves, keys and endpoints, is allocated in libucp and libucs.
extern "C" const char* __lsan_default_suppressions() { return "leak:libuct.so\n"; }
