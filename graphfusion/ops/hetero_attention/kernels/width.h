// Everything for one lane width. The includer sets W and NAME after choosing the instruction set.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "entry.h"

namespace NAME {
#include "problem.h"
#include "lanes.h"

// The k-th largest of n numbers, which are reordered (Hoare's selection). NaN ends the search early, never the bounds.
static inline float kth_largest(float *x, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    const float pivot = x[(low + high) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (i < high && x[i] > pivot) i++;
      while (j > low && x[j] < pivot) j--;
      if (i <= j) {
        const float t = x[i];
        x[i++] = x[j];
        x[j--] = t;
      }
    }
    if (k - 1 <= j) high = j;
    else if (k - 1 >= i) low = i;
    else break;
  }
  return x[k - 1];
}
#include "rows.h"
#include "attention.h"
#include "linear.h"

template <class T, int P> static int run(const Problem &p, bool back) {
  const int failed = back ? backward<T, P>(p) : forward<T, P>(p);
  if (!failed) linear<T, P>(p, back);
  return failed;
}
template <class T> static int by_padding(const Problem &p, bool back) {
  switch (p.P) {
    case 1: return run<T, 1>(p, back);
    case 2: return run<T, 2>(p, back);
    case 4: return run<T, 4>(p, back);
    case 8: return run<T, 8>(p, back);
    default: return run<T, 16>(p, back);
  }
}
// The flat call of cpu.py → Problem.
static int call(const int64_t *in, const double *real, bool back) {
  Problem p;
  int64_t *fields[] = {&p.types, &p.relations, &p.merged, &p.H, &p.P, &p.value_heads, &p.C, &p.mode, &p.bf16, &p.across, &p.top_k, &p.threads, &p.B};
  for (int64_t *f : fields) *f = *in++;
  p.seed = (uint64_t)*in++;
  p.att = (const float *)*in++;
  p.datt = (float *)*in++;
  p.slope = (float)real[0];
  p.dropout = (float)real[1];
  p.scale = (float)real[2];
  Buffer<Type> types;
  Buffer<Relation> relations;
  Buffer<int32_t> entering;
  p.type = types.reserve(p.types + 1);
  p.relation = relations.reserve(p.relations + 1);
  for (int64_t t = 0; t < p.types; t++) {
    Type &x = p.type[t];
    x.n = *in++; x.R = *in++; x.Q = *in++; x.O = *in++;
    x.ptr = (const int32_t *)*in++;
    x.value = (const char *)*in++; x.key = (const float *)*in++; x.query = (const float *)*in++;
    x.out = (float *)*in++; x.grad = (const float *)*in++;
    x.dvalue = (char *)*in++; x.dkey = (float *)*in++; x.dquery = (float *)*in++;
  }
  for (int64_t r = 0; r < p.relations; r++) {
    Relation &x = p.relation[r];
    x.kind = *in++; x.source = *in++; x.leaves = *in++; x.target = *in++; x.enters = *in++;
    for (int k = 0; k < 4; k++) x.p[k] = *in++;
    x.a = (const int32_t *)*in++; x.b = (const int32_t *)*in++;
    x.edge = (const float *)*in++; x.dedge = (float *)*in++;
    x.linear = *in++;
  }
  int32_t *slot = entering.reserve(p.relations + 1);
  for (int64_t t = 0; t < p.types; t++) {
    p.type[t].entering = slot;
    for (int64_t r = 0; r < p.relations; r++)
      if (p.relation[r].target == t) *slot++ = r;
  }
  return p.bf16 ? by_padding<bf16>(p, back) : by_padding<float>(p, back);
}
}  // namespace NAME

int CALL(const int64_t *in, const double *real, int back) { return NAME::call(in, real, back != 0); }
