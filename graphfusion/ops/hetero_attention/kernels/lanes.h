// Vectors of W floats: loads, exponential, sums over lanes. Included inside a namespace per lane width.

typedef float vf __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef uint16_t vh __attribute__((vector_size(W * 2), aligned(2), may_alias));
typedef uint16_t bf16;

static inline vf all(float x) { return x - vf{}; }  // − 0 is no operation, + 0 is one (−0 + 0 = 0)
static inline vf load(const float *p) { return *(const vf *)p; }
static inline vf load(const bf16 *p) { return (vf)(__builtin_convertvector(*(const vh *)p, vu) << 16); }
static inline void store(float *p, vf v) { *(vf *)p = v; }
static inline void store(bf16 *p, vf v) {  // round to nearest even; NaN stays NaN
  vu u = (vu)v;
  vu r = (u + 0x7FFF + ((u >> 16) & 1)) >> 16;
  vi nan = v != v;
  r = (r & ~(vu)nan) | (((u >> 16) | 0x40) & (vu)nan);
  *(vh *)p = __builtin_convertvector(r, vh);
}

// exp(x) to about 1 ulp for x ≤ 88; 0 below -87 (range reduction and polynomial as in Cephes expf). NaN stays NaN.
static inline vf exp_lanes(vf x) {
  const vi small = x < -87.0f;
  vf y = small ? all(-87.0f) : x;
  vf n = y * 1.44269504088896341f + 12582912.0f;
  vi whole = (vi)n - 0x4B400000;
  n = n - 12582912.0f;
  vf r = y - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  vf q = all(1.9875691500e-4f);
  q = q * r + 1.3981999507e-3f;
  q = q * r + 8.3334519073e-3f;
  q = q * r + 4.1665795894e-2f;
  q = q * r + 1.6666665459e-1f;
  q = q * r + 5.0000001201e-1f;
  q = q * r * r + r + 1.0f;
  q = q * (vf)((whole + 127) << 23);
  return small ? vf{} : q;
}

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12
#define LANES(a, b, ...) __builtin_shuffle(a, b, vi{__VA_ARGS__})
#else
#define LANES(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#endif
#if W == 16
static inline vf pair1(vf a, vf b) {
  return LANES(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) + LANES(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}
static inline vf pair2(vf a, vf b) {
  return LANES(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) + LANES(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}
static inline vf pair4(vf a, vf b) {
  return LANES(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) + LANES(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
}
static inline vf pair8(vf a, vf b) {
  return LANES(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) + LANES(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}
#elif W == 8
static inline vf pair1(vf a, vf b) { return LANES(a, b, 0, 8, 2, 10, 4, 12, 6, 14) + LANES(a, b, 1, 9, 3, 11, 5, 13, 7, 15); }
static inline vf pair2(vf a, vf b) { return LANES(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + LANES(a, b, 2, 3, 10, 11, 6, 7, 14, 15); }
static inline vf pair4(vf a, vf b) { return LANES(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + LANES(a, b, 4, 5, 6, 7, 12, 13, 14, 15); }
static inline vf pair8(vf a, vf) { return a; }
#else
static inline vf pair1(vf a, vf b) { return LANES(a, b, 0, 4, 2, 6) + LANES(a, b, 1, 5, 3, 7); }
static inline vf pair2(vf a, vf b) { return LANES(a, b, 0, 1, 4, 5) + LANES(a, b, 2, 3, 6, 7); }
static inline vf pair4(vf a, vf) { return a; }
static inline vf pair8(vf a, vf) { return a; }
#endif

// Lane l of the result is lane (l + S) mod W.
template <int S> static inline vf rotate(vf v) {
#if W == 16
  return LANES(v, v, S % W, (S + 1) % W, (S + 2) % W, (S + 3) % W, (S + 4) % W, (S + 5) % W, (S + 6) % W, (S + 7) % W, (S + 8) % W, (S + 9) % W, (S + 10) % W, (S + 11) % W, (S + 12) % W, (S + 13) % W, (S + 14) % W, (S + 15) % W);
#elif W == 8
  return LANES(v, v, S % W, (S + 1) % W, (S + 2) % W, (S + 3) % W, (S + 4) % W, (S + 5) % W, (S + 6) % W, (S + 7) % W);
#else
  return LANES(v, v, S % W, (S + 1) % W, (S + 2) % W, (S + 3) % W);
#endif
}

template <int S, int K> static inline vf halves_summed(vf v) {
  if constexpr (S >= K) return halves_summed<S / 2, K>(v + rotate<S>(v));
  else return v;
}
// o[h] = sum over the lanes of t[h], for h < K; K a power of two, at most W.
template <int K> static inline void lane_sums(const vf *t, float *o) {
  vf s[K];
#pragma GCC unroll 16
  for (int k = 0; k < K; k++) s[k] = t[k];
  // after a level, lane l of s[k] holds a partial sum of t[k + (K / 2^level) ...]; the tree below keeps them in order
  if constexpr (K >= 2) for (int k = 0; k < K / 2; k++) s[k] = pair1(s[2 * k], s[2 * k + 1]);
  if constexpr (K >= 4) for (int k = 0; k < K / 4; k++) s[k] = pair2(s[2 * k], s[2 * k + 1]);
  if constexpr (K >= 8) for (int k = 0; k < K / 8; k++) s[k] = pair4(s[2 * k], s[2 * k + 1]);
  if constexpr (K >= 16) for (int k = 0; k < K / 16; k++) s[k] = pair8(s[2 * k], s[2 * k + 1]);
  const vf sums = halves_summed<W / 2, K>(s[0]);
  memcpy(o, &sums, K * sizeof(float));
}

// Arrays (n, P) of P numbers an edge, one a head, as vectors: K floats hold a whole number of edges, or a part of one.
// `fold` reduces the lanes of one head and leaves the result in each of them.
template <int P, int STEP = (P < W ? W : P)> struct Heads {
  typedef float f __attribute__((vector_size(P * 4), aligned(4), may_alias));
  typedef int32_t i __attribute__((vector_size(P * 4), aligned(4), may_alias));
  static inline f get(const float *p) { return *(const f *)p; }
  static inline void put(float *p, f v) { *(f *)p = v; }
  static constexpr int K = STEP;  // floats that one step takes
  typedef float k __attribute__((vector_size(STEP * 4), aligned(4), may_alias));
  static inline k load_k(const float *p) { return *(const k *)p; }
  static inline void store_k(float *p, k v) { *(k *)p = v; }
  template <int S, class Op> static inline vf fold_from(vf v, Op op) {
    if constexpr (S >= P) return fold_from<S / 2>(op(v, rotate<S>(v)), op);
    else return v;
  }
  // V is always k; as a template parameter, since GCC forgets the attribute of k while it parses
  template <class V, class Op> static inline V fold(V v, Op op) {
    if constexpr (P < W) return fold_from<W / 2>(v, op);
    else return v;
  }
  template <class V> static inline V exp(V x) {
    if constexpr (K == W) {
      return exp_lanes(x);
    } else {
      float part[K];
      store_k(part, x);
      for (int c = 0; c < K; c += W) store(part + c, exp_lanes(load(part + c)));
      return load_k(part);
    }
  }
};
// Gives the floats from n · P to the next whole step a value: room for K - 1 more is there, what it held is lost.
template <int P> static inline int64_t close_steps(float *w, int64_t n, float value) {
  constexpr int K = Heads<P>::K;
  const int64_t end = (n * P + K - 1) / K * K;
  for (int64_t k = n * P; k < end; k++) w[k] = value;
  return end;
}
