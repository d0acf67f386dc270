// Sixteen lanes, where the compiler knows AVX-512.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)  // clang ignores the pragma
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#define W 16
#define NAME avx512
#define CALL call_avx512
#include "width.h"
#endif
