// Eight lanes, where the compiler knows AVX2.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)  // clang ignores the pragma
#pragma GCC target("avx2,fma")
#define W 8
#define NAME avx2
#define CALL call_avx2
#include "width.h"
#endif
