// What every mode is made of: weighted sums of rows and dot products with rows, heads by heads.
// VC vectors a head and HB heads are held in registers at once. Included inside a namespace per lane width.

#if W == 8
#define REGISTERS 8
#else
#define REGISTERS 16
#endif
#define TILE 8  // most vectors of a head in one pass

// Hides a pointer from the optimiser, which otherwise keeps a register for each constant offset from it, and spills.
#define OPAQUE(pointer) asm("" : "+r"(pointer))

template <int BYTES> static inline void prefetch(const void *p) {
  for (int at = 0; at < BYTES; at += 64) __builtin_prefetch((const char *)p + at);
}

constexpr int most_heads(int vc) {
  int k = 1;
  while (2 * k * vc <= REGISTERS) k *= 2;
  return k < W ? k : W;
}

// out[h, :] = Σ_e w[at(e), h] · rows[e][h, :] for HB heads of VC vectors; `index` picks the weights, or null.
template <int VC, int HB, class T>
static inline void sum_tile(const T *const *rows, const int32_t *index, int64_t n, const float *w, int64_t P, int64_t off, float *out) {
  constexpr int64_t C = VC * W;  // several heads at once are only taken when a head is one tile
  vf acc[HB * VC];
#pragma GCC unroll 16
  for (int k = 0; k < HB * VC; k++) acc[k] = vf{};
  for (int64_t e = 0; e < n; e++) {
    const T *row = rows[e] + off;
    const float *we = w + (index ? (int64_t)index[e] : e) * P;
    OPAQUE(row);
    prefetch<HB * VC * W * sizeof(T)>(rows[e + 1] + off);
#pragma GCC unroll 16
    for (int h = 0; h < HB; h++) {
      const vf x = all(we[h]);
#pragma GCC unroll 8
      for (int k = 0; k < VC; k++) acc[h * VC + k] += load(row + h * C + k * W) * x;
    }
  }
#pragma GCC unroll 16
  for (int k = 0; k < HB * VC; k++) store(out + k * W, acc[k]);
}
// w[e, h] (+)= rows[e][h, :] · g[h, :] for HB heads of VC vectors
template <int VC, int HB, bool ADD, class T>
static inline void dot_tile(const float *g, const T *const *rows, int64_t n, float *w, int64_t P, int64_t off) {
  constexpr int64_t C = VC * W;
  vf gv[HB * VC];
#pragma GCC unroll 16
  for (int k = 0; k < HB * VC; k++) gv[k] = load(g + k * W);
  for (int64_t e = 0; e < n; e++) {
    const T *row = rows[e] + off;
    OPAQUE(row);
    prefetch<HB * VC * W * sizeof(T)>(rows[e + 1] + off);
    vf t[HB];
#pragma GCC unroll 16
    for (int h = 0; h < HB; h++) {
      t[h] = gv[h * VC] * load(row + h * C);
#pragma GCC unroll 8
      for (int k = 1; k < VC; k++) t[h] += gv[h * VC + k] * load(row + h * C + k * W);
    }
    float *we = w + e * P;
    if (ADD) {
      float s[HB];
      lane_sums<HB>(t, s);
#pragma GCC unroll 16
      for (int h = 0; h < HB; h++) we[h] += s[h];
    } else {
      lane_sums<HB>(t, we);
    }
  }
}

// Calls F<VC, HB>(first head) over all H heads, HB as large as the registers allow; wide heads in tiles of TILE vectors,
// F<VC, 1, ADD>(head, first vector). `Step` has `run<VC, HB, ADD>(head, column)`.
template <class Step, int VC, int HB> static inline void by_heads(Step &s, int64_t h, int64_t H) {
  for (; h + HB <= H; h += HB) s.template run<VC, HB, false>(h, 0);
  if constexpr (HB > 1) by_heads<Step, VC, HB / 2>(s, h, H);
}
template <bool ADD, class Step> static inline void wide_tile(Step &s, int64_t h, int64_t at, int64_t vectors) {
  switch (vectors) {
    case 1: return s.template run<1, 1, ADD>(h, at);
    case 2: return s.template run<2, 1, ADD>(h, at);
    case 3: return s.template run<3, 1, ADD>(h, at);
    case 4: return s.template run<4, 1, ADD>(h, at);
    case 5: return s.template run<5, 1, ADD>(h, at);
    case 6: return s.template run<6, 1, ADD>(h, at);
    case 7: return s.template run<7, 1, ADD>(h, at);
    default: return s.template run<8, 1, ADD>(h, at);
  }
}
template <class Step> static inline void over_heads(Step &s, int64_t H, int64_t C) {
  const int64_t vc = C / W;
  switch (vc) {
    case 1: return by_heads<Step, 1, most_heads(1)>(s, 0, H);
    case 2: return by_heads<Step, 2, most_heads(2)>(s, 0, H);
    case 3: return by_heads<Step, 3, most_heads(3)>(s, 0, H);
    case 4: return by_heads<Step, 4, most_heads(4)>(s, 0, H);
    case 8: return by_heads<Step, 8, most_heads(8)>(s, 0, H);
  }
  for (int64_t h = 0; h < H; h++)
    for (int64_t at = 0; at < vc; at += TILE) {
      const int64_t some = vc - at < TILE ? vc - at : TILE;
      if (at) wide_tile<true>(s, h, at * W, some);
      else wide_tile<false>(s, h, at * W, some);
    }
}

template <class T> struct SumStep {
  const T *const *rows; const int32_t *index; int64_t n; const float *w; int64_t P, C; float *out;
  template <int VC, int HB, bool ADD> void run(int64_t h, int64_t at) {
    sum_tile<VC, HB, T>(rows, index, n, w + h, P, h * C + at, out + h * C + at);
  }
};
template <class T> struct DotStep {
  const float *g; const T *const *rows; int64_t n; float *w; int64_t P, C;
  template <int VC, int HB, bool ADD> void run(int64_t h, int64_t at) {
    dot_tile<VC, HB, ADD, T>(g + h * C + at, rows, n, w + h, P, h * C + at);
  }
};
// out (H, C) = Σ_e w[e] ⊙ rows[e]; rows has one entry more than n, which is only prefetched
template <class T>
static inline void weighted_sum(const T *const *rows, const int32_t *index, int64_t n, const float *w, int64_t P, int64_t H, int64_t C, float *out) {
  SumStep<T> s{rows, index, n, w, P, C, out};
  over_heads(s, H, C);
}
// w (n, P): w[e, h] = rows[e][h] · g[h]
template <class T>
static inline void row_dots(const float *g, const T *const *rows, int64_t n, float *w, int64_t P, int64_t H, int64_t C) {
  DotStep<T> s{g, rows, n, w, P, C};
  over_heads(s, H, C);
}

// The same with one value row for all heads (relations into few nodes: aggregate first, project after).
// Edges in chunks whose rows stay in the nearest cache while all columns pass; sums are kept in `out` between chunks.
template <int HB, class T>
static inline void shared_sum_tile(const T *const *rows, int64_t n, const float *w, int64_t P, int64_t C, float *out) {
  constexpr int64_t CHUNK = 16;
  for (int64_t e0 = 0; e0 < n; e0 += CHUNK) {
    const int64_t e1 = e0 + CHUNK < n ? e0 + CHUNK : n;
    for (int64_t c = 0; c < C; c += W) {
      vf acc[HB];
#pragma GCC unroll 8
      for (int h = 0; h < HB; h++) acc[h] = e0 ? load(out + h * C + c) : vf{};
      for (int64_t e = e0; e < e1; e++) {
        const vf x = load(rows[e] + c);
#pragma GCC unroll 8
        for (int h = 0; h < HB; h++) acc[h] += x * w[e * P + h];
      }
#pragma GCC unroll 8
      for (int h = 0; h < HB; h++) store(out + h * C + c, acc[h]);
    }
  }
}
template <int HB, class T>
static inline void shared_dot_tile(const float *g, const T *const *rows, int64_t n, float *w, int64_t P, int64_t C) {
  for (int64_t e = 0; e < n; e++) {
    vf t[HB];
#pragma GCC unroll 8
    for (int h = 0; h < HB; h++) t[h] = vf{};
    for (int64_t c = 0; c < C; c += W) {
      const vf x = load(rows[e] + c);
#pragma GCC unroll 8
      for (int h = 0; h < HB; h++) t[h] += x * load(g + h * C + c);
    }
    lane_sums<HB>(t, w + e * P);
  }
}
template <int HB, class T>
static inline void shared_sums(const T *const *rows, int64_t n, const float *w, int64_t P, int64_t h, int64_t H, int64_t C, float *out) {
  for (; h + HB <= H; h += HB) shared_sum_tile<HB, T>(rows, n, w + h, P, C, out + h * C);
  if constexpr (HB > 1) shared_sums<HB / 2, T>(rows, n, w, P, h, H, C, out);
}
template <int HB, class T>
static inline void shared_dots(const float *g, const T *const *rows, int64_t n, float *w, int64_t P, int64_t h, int64_t H, int64_t C) {
  for (; h + HB <= H; h += HB) shared_dot_tile<HB, T>(g + h * C, rows, n, w + h, P, C);
  if constexpr (HB > 1) shared_dots<HB / 2, T>(g, rows, n, w, P, h, H, C);
}
// out (C) = Σ_e Σ_h w[index[e], h] · rows[e][h]: the gradient of a shared row
static inline void shared_back(const float *const *rows, const int32_t *index, int64_t n, const float *w, int64_t P, int64_t H, int64_t C, float *out) {
  int64_t c = 0;
  for (; c + 4 * W <= C; c += 4 * W) {
    vf acc[4] = {vf{}, vf{}, vf{}, vf{}};
    for (int64_t e = 0; e < n; e++) {
      const float *we = w + (int64_t)index[e] * P;
      for (int64_t h = 0; h < H; h++) {
        const vf x = all(we[h]);
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) acc[k] += load(rows[e] + h * C + c + k * W) * x;
      }
    }
    for (int k = 0; k < 4; k++) store(out + c + k * W, acc[k]);
  }
  for (; c < C; c += W) {
    vf acc = vf{};
    for (int64_t e = 0; e < n; e++)
      for (int64_t h = 0; h < H; h++) acc += load(rows[e] + h * C + c) * w[(int64_t)index[e] * P + h];
    store(out + c, acc);
  }
}

// GATv2 (Brody et al. 2022): score = att · leaky(v_j + q_i (+ e)).
static inline vf leaky(vf x, float slope) { return x > 0.0f ? x : x * slope; }
template <class T> struct V2Score {
  const T *const *rows; int64_t n; const float *q, *att, *edge; float slope; float *w; int64_t P, H, C;
  template <int VC, int HB, bool ADD> void run(int64_t h, int64_t at) {
    const int64_t off = h * C + at;
    for (int64_t e = 0; e < n; e++) {
      const T *row = rows[e] + off;
      OPAQUE(row);
      prefetch<HB * VC * W * sizeof(T)>(rows[e + 1] + off);
      vf t[HB];
#pragma GCC unroll 16
      for (int k = 0; k < HB; k++) {
        t[k] = vf{};
#pragma GCC unroll 8
        for (int c = 0; c < VC; c++) {
          const int64_t o = (k * VC + c) * W;
          vf x = load(row + o) + load(q + off + o);
          if (edge) x += load(edge + e * H * C + off + o);
          t[k] += leaky(x, slope) * load(att + off + o);
        }
      }
      float s[HB];
      lane_sums<HB>(t, s);
#pragma GCC unroll 16
      for (int k = 0; k < HB; k++) w[e * P + h + k] = ADD ? w[e * P + h + k] + s[k] : s[k];
    }
  }
};
// From d (n, P) = ∂/∂score: dq (H, C), datt (H, C, added to), dedge (n, H, C) where there are edge features.
template <class T> struct V2Target {
  const T *const *rows; int64_t n; const float *q, *att, *edge; float slope; const float *d; int64_t P, H, C; float *dq, *datt, *dedge;
  template <int VC, int HB, bool ADD> void run(int64_t h, int64_t at) {
    for (int k = 0; k < HB; k++) {
      const int64_t o = (h + k) * C + at;
      vf inner[VC], outer[VC], qv[VC];
#pragma GCC unroll 8
      for (int c = 0; c < VC; c++) {
        inner[c] = outer[c] = vf{};
        qv[c] = load(q + o + c * W);
      }
      for (int64_t e = 0; e < n; e++) {
        const vf whole = all(d[e * P + h + k]), part = all(d[e * P + h + k] * slope);
#pragma GCC unroll 8
        for (int c = 0; c < VC; c++) {
          vf x = load(rows[e] + o + c * W) + qv[c];
          if (edge) x += load(edge + e * H * C + o + c * W);
          const vf dx = x > 0.0f ? whole : part;
          inner[c] += dx;
          outer[c] += dx * x;  // d · leaky(x) = (d · leaky'(x)) · x
          if (dedge) store(dedge + e * H * C + o + c * W, dx * load(att + o + c * W));
        }
      }
#pragma GCC unroll 8
      for (int c = 0; c < VC; c++) {
        store(dq + o + c * W, inner[c] * load(att + o + c * W));
        store(datt + o + c * W, load(datt + o + c * W) + outer[c]);
      }
    }
  }
};
// out[h, :] += att ⊙ Σ_e d[index[e], h] · leaky'(v + q_e (+ edge_e))
template <class T> struct V2Source {
  const T *v; const float *const *q; const float *const *edge; const int32_t *index; int64_t n; const float *att; float slope; const float *d; int64_t P, C; float *out;
  template <int VC, int HB, bool ADD> void run(int64_t h, int64_t at) {
    const int64_t off = h * C + at;
    vf acc[HB * VC];
#pragma GCC unroll 16
    for (int k = 0; k < HB * VC; k++) acc[k] = vf{};
    for (int64_t e = 0; e < n; e++) {
      const float *de = d + (int64_t)index[e] * P + h;
      prefetch<HB * VC * W * 4>(q[e + 1] + off);
#pragma GCC unroll 16
      for (int k = 0; k < HB; k++) {
        const vf whole = all(de[k]), part = all(de[k] * slope);
#pragma GCC unroll 8
        for (int c = 0; c < VC; c++) {
          const int64_t o = off + (k * VC + c) * W;
          vf x = load(v + o) + load(q[e] + o);
          if (edge) x += load(edge[e] + o);
          acc[k * VC + c] += x > 0.0f ? whole : part;
        }
      }
    }
#pragma GCC unroll 16
    for (int k = 0; k < HB * VC; k++) store(out + off + k * W, load(out + off + k * W) + acc[k] * load(att + off + k * W));
  }
};
