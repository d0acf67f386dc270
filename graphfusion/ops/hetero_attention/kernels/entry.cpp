// The plain C interface, called by cpu.py through ctypes.
#include <stdlib.h>
#include <string.h>

#include "entry.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WIDE 1  // the files of 8 and 16 lanes are not empty
#else
#define WIDE 0
#endif

#if WIDE
static bool has(int lanes) {
  __builtin_cpu_init();
  if (lanes == 8) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

extern "C" {
// Most lanes that this processor has kernels for: 16, 8 or 4.
int graphfusion_lanes() {
#if WIDE
  if (has(8)) return has(16) ? 16 : 8;
#endif
  return 4;
}
// One forward (back = 0) or backward call; 1 if an edge ties two samples, 2 if a sample has too many pairs.
int graphfusion_attention(const int64_t *in, const double *real, int back, int lanes) {
#if WIDE
  if (lanes == 16) return call_avx512(in, real, back);
  if (lanes == 8) return call_avx2(in, real, back);
#endif
  return call_baseline(in, real, back);
}
// Listed edges (sources, then targets) → ptr (targets + 1), sources by target, their places in the list. Returns the
// place of the first edge that names a node that is not there, or -1.
int64_t graphfusion_index(const int64_t *edges, int64_t count, int64_t sources, int64_t targets, int32_t *ptr, int32_t *source, int64_t *order) {
  const int64_t *from = edges, *to = edges + count;
  memset(ptr, 0, (targets + 1) * sizeof(int32_t));
  bool sorted = true;
  int64_t last = 0;
  for (int64_t e = 0; e < count; e++) {
    if (from[e] < 0 || from[e] >= sources || to[e] < 0 || to[e] >= targets) return e;
    ptr[to[e] + 1]++;
    sorted &= to[e] >= last;
    last = to[e];
  }
  for (int64_t i = 0; i < targets; i++) ptr[i + 1] += ptr[i];
  if (sorted) {
    for (int64_t e = 0; e < count; e++) {
      source[e] = (int32_t)from[e];
      order[e] = e;
    }
    return -1;
  }
  int32_t *next = (int32_t *)malloc((targets + 1) * sizeof(int32_t));
  memcpy(next, ptr, (targets + 1) * sizeof(int32_t));
  for (int64_t e = 0; e < count; e++) {
    const int32_t at = next[to[e]]++;
    source[at] = (int32_t)from[e];
    order[at] = e;
  }
  free(next);
  return -1;
}
}
