// Dense `gat` relations in linear time; the derivation is in ../README.md. Included inside a namespace per lane width.
// One task is a (sample, head): its relations one after another, so no two tasks write to one place.
// Letters: n sources, m targets, a_i logit of target i, b_j logit of source j (sorted, largest first), k_i how many
// sources have a_i + b_j > 0.

struct Sorted {
  Buffer<int32_t> order, k, count, by_k, swap_order;
  Buffer<uint32_t> bits, swap_bits;
  Buffer<float> b, e1, e2, a, u1, u2, z1, z2, s1, s2, mean, part;
};

// order: the numbers 0 … n − 1 by key, largest first, equal keys by number. keys has room for W − 1 more.
static inline void sort_down(Sorted &s, float *key, int64_t n, bool unknown) {
  int32_t *order = s.order.reserve(n + W);
  for (int64_t j = 0; j < n; j++) order[j] = j;
  if (unknown) return;  // a key is NaN: any order will do, but each source must have a place
  if (n <= 256) {  // rank by counting: everything in vectors
    for (int64_t j = n; j < n + W; j++) key[j] = -INFINITY;
    for (int64_t j = 0; j < n; j += W) {
      const vf mine = load(key + j);
      vi rank = vi{}, number;
      for (int l = 0; l < W; l++) number[l] = j + l;
      for (int64_t o = 0; o < n; o++) {
        const vf other = all(key[o]);
        rank -= (vi)(other > mine);
        rank -= (vi)(other == mine) & (vi)((vi{} + (int32_t)o) < number);
      }
      for (int l = 0; l < W && j + l < n; l++) order[rank[l]] = j + l;
    }
    return;
  }
  uint32_t *from = s.bits.reserve(n), *to = s.swap_bits.reserve(n);
  int32_t *o = order, *next = s.swap_order.reserve(n);
  for (int64_t j = 0; j < n; j++) {
    uint32_t u;
    const float x = key[j] + 0.0f;  // -0 sorts as 0
    memcpy(&u, &x, 4);
    from[j] = ~(u & 0x80000000u ? ~u : u | 0x80000000u);
  }
  for (int shift = 0; shift < 33; shift += 11) {  // three passes of 11 bits: stable
    int32_t place[2049] = {0};
    for (int64_t j = 0; j < n; j++) place[((from[j] >> shift) & 2047) + 1]++;
    for (int v = 0; v < 2048; v++) place[v + 1] += place[v];
    for (int64_t j = 0; j < n; j++) {
      const int32_t at = place[(from[j] >> shift) & 2047]++;
      to[at] = from[j];
      next[at] = o[j];
    }
    uint32_t *t1 = from; from = to; to = t1;
    int32_t *t2 = o; o = next; next = t2;
  }
  if (o != order) memcpy(order, o, n * sizeof(int32_t));
}

// Everything of one (sample, relation, head) that does not depend on the values.
template <int P> static void weigh(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h) {
  const Type &from = p.type[r.source], &to = p.type[r.target];
  const int64_t n = from.ptr[b + 1] - from.ptr[b], m = to.ptr[b + 1] - to.ptr[b];
  const float *key = from.key + ((int64_t)from.ptr[b] * from.R + r.leaves) * P + h;
  float *raw = s.e2.reserve(n + 2 * W), *sorted = s.b.reserve(n + 2 * W), *e1 = s.e1.reserve(n + 2 * W);
  float unknown = 0;  // NaN if a key is: a sum over all sources must show it
  for (int64_t j = 0; j < n; j++) {
    raw[j] = key[j * from.R * P];
    if (raw[j] != raw[j]) unknown = raw[j];
  }
  sort_down(s, raw, n, unknown != unknown);
  for (int64_t j = 0; j < n; j++) sorted[j] = raw[s.order[j]];
  for (int64_t j = n; j < n + W; j++) sorted[j] = -INFINITY;
  const float top = sorted[0] + unknown;
  float *e2 = s.e2.data;
  for (int64_t j = 0; j < n; j += W) {
    const vf below = load(sorted + j) - top;
    store(e1 + j, exp_lanes(below));
    store(e2 + j, exp_lanes(below * p.slope));
  }
  // Z1[k] = Σ_{j<k} e1, Z2[k] = Σ_{j≥k} e2, summed in blocks
  float *z1 = s.z1.reserve(n + 1), *z2 = s.z2.reserve(n + 1), base = 0, sum = 0;
  for (int64_t j = 0; j <= n; j++) {
    z1[j] = base + sum;
    if (j < n) sum += e1[j];
    if (j % 64 == 63) { base += sum; sum = 0; }
  }
  base = sum = 0;
  for (int64_t j = n; j >= 0; j--) {
    if (j < n) sum += e2[j];
    z2[j] = base + sum;
    if (j % 64 == 0) { base += sum; sum = 0; }
  }
  float *a = s.a.reserve(m + 2 * W), *u1 = s.u1.reserve(m + 2 * W), *u2 = s.u2.reserve(m + 2 * W);
  int32_t *k = s.k.reserve(m + W);
  const float *query = to.query + ((int64_t)to.ptr[b] * to.Q + r.enters) * P + h;
  for (int64_t i = 0; i < m; i++) a[i] = query[i * to.Q * P];
  for (int64_t i = m; i < m + W; i++) a[i] = 0;
  for (int64_t i = 0; i < m; i++) {
    if (n <= 256) {
      const vf mine = all(a[i]);
      vi found = vi{};
      for (int64_t j = 0; j < n; j += W) found -= (vi)(load(sorted + j) + mine > 0.0f);
      int32_t total = 0;
      for (int l = 0; l < W; l++) total += found[l];
      k[i] = total < n ? total : n;
    } else {
      int64_t low = 0, length = n;
      while (length > 0) {
        const int64_t half = length / 2;
        const bool above = sorted[low + half] + a[i] > 0.0f;
        low = above ? low + half + 1 : low;
        length = above ? length - half - 1 : half;
      }
      k[i] = low;
    }
  }
  // shifted by the largest score: exp(leaky(a + b_max) − shift) = 1, everything else at most 1
  for (int64_t i = 0; i < m; i += W) {
    const vf most = load(a + i) + top, shift = leaky(most, p.slope);
    store(u1 + i, exp_lanes(most - shift));
    store(u2 + i, exp_lanes(most * p.slope - shift));
  }
  for (int64_t i = 0; i < m; i++) {
    const float total = u1[i] * z1[k[i]] + u2[i] * z2[k[i]];
    u1[i] /= total;
    u2[i] /= total;
  }
}

// s1[k] = Σ_{j<k} e1_j v_j, s2[k] = Σ_{j≥k} e2_j v_j for VC vectors of the values, summed in blocks
template <int VC, class T> static void prefix_sums(const T *value, int64_t stride, Sorted &s, int64_t n) {
  constexpr int64_t C = VC * W;
  float *s1 = s.s1.reserve((n + 1) * C), *s2 = s.s2.reserve((n + 1) * C);
  vf base[VC], sum[VC];
  for (int c = 0; c < VC; c++) base[c] = sum[c] = vf{};
  for (int64_t j = 0; j <= n; j++) {
    for (int c = 0; c < VC; c++) store(s1 + j * C + c * W, base[c] + sum[c]);
    if (j < n) for (int c = 0; c < VC; c++) sum[c] += load(value + s.order[j] * stride + c * W) * s.e1[j];
    if (j % 64 == 63) for (int c = 0; c < VC; c++) { base[c] += sum[c]; sum[c] = vf{}; }
  }
  for (int c = 0; c < VC; c++) base[c] = sum[c] = vf{};
  for (int64_t j = n; j >= 0; j--) {
    if (j < n) for (int c = 0; c < VC; c++) sum[c] += load(value + s.order[j] * stride + c * W) * s.e2[j];
    for (int c = 0; c < VC; c++) store(s2 + j * C + c * W, base[c] + sum[c]);
    if (j % 64 == 0) for (int c = 0; c < VC; c++) { base[c] += sum[c]; sum[c] = vf{}; }
  }
}

template <int VC, class T> struct LinearForward {
  static void run(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h, int64_t at) {
    constexpr int64_t C = VC * W;
    const Type &from = p.type[r.source], &to = p.type[r.target];
    const int64_t width = p.H * p.C, n = from.ptr[b + 1] - from.ptr[b], m = to.ptr[b + 1] - to.ptr[b];
    const T *value = (const T *)from.value + ((int64_t)from.ptr[b] * from.R + r.leaves) * width + h * p.C + at;
    prefix_sums<VC, T>(value, from.R * width, s, n);
    float *out = to.out + ((int64_t)to.ptr[b] * to.O + (p.merged ? 0 : r.enters)) * width + h * p.C + at;
    for (int64_t i = 0; i < m; i++) {
      const float *s1 = s.s1.data + s.k[i] * C, *s2 = s.s2.data + s.k[i] * C;
      float *o = out + i * to.O * width;
      for (int c = 0; c < VC; c++) store(o + c * W, load(o + c * W) + load(s1 + c * W) * s.u1[i] + load(s2 + c * W) * s.u2[i]);
    }
  }
};
// mean_i += Σ_j w_ij g_i·v_j, and its two parts ahead of the shared factor: part[2 i] prefix, part[2 i + 1] suffix
template <int VC, class T> struct LinearMean {
  static void run(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h, int64_t at) {
    constexpr int64_t C = VC * W;
    const Type &from = p.type[r.source], &to = p.type[r.target];
    const int64_t width = p.H * p.C, n = from.ptr[b + 1] - from.ptr[b], m = to.ptr[b + 1] - to.ptr[b];
    const T *value = (const T *)from.value + ((int64_t)from.ptr[b] * from.R + r.leaves) * width + h * p.C + at;
    prefix_sums<VC, T>(value, from.R * width, s, n);
    const float *grad = to.grad + ((int64_t)to.ptr[b] * to.O + (p.merged ? 0 : r.enters)) * width + h * p.C + at;
    for (int64_t i = 0; i < m; i++) {
      const float *g = grad + i * to.O * width, *s1 = s.s1.data + s.k[i] * C, *s2 = s.s2.data + s.k[i] * C;
      vf t[2] = {vf{}, vf{}};
      for (int c = 0; c < VC; c++) {
        t[0] += load(g + c * W) * load(s1 + c * W);
        t[1] += load(g + c * W) * load(s2 + c * W);
      }
      float dots[2];
      lane_sums<2>(t, dots);
      s.part[2 * i] += dots[0];
      s.part[2 * i + 1] += dots[1];
    }
  }
};
// The same sums with sources and targets exchanged: G1[j] = Σ_{k_i > j} u1_i g_i, G2[j] = Σ_{k_i ≤ j} u2_i g_i.
// dvalue_j = e1_j G1 + e2_j G2; z1, z2 gather v_j·G1 and v_j·G2.
template <int VC, class T> struct LinearSource {
  static void run(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h, int64_t at) {
    constexpr int64_t C = VC * W;
    const Type &from = p.type[r.source], &to = p.type[r.target];
    const int64_t width = p.H * p.C, n = from.ptr[b + 1] - from.ptr[b], stride = from.R * width, skip = to.O * width;
    const int64_t offset = ((int64_t)from.ptr[b] * from.R + r.leaves) * width + h * p.C + at;
    const T *value = (const T *)from.value + offset;
    T *dvalue = (T *)from.dvalue + offset;
    const float *grad = to.grad + ((int64_t)to.ptr[b] * to.O + (p.merged ? 0 : r.enters)) * width + h * p.C + at;
    float *up = s.s1.reserve((n + 1) * C);
    vf base[VC], sum[VC];
    for (int c = 0; c < VC; c++) base[c] = sum[c] = vf{};
    int64_t since = 0;
    for (int64_t j = n - 1; j >= 0; j--) {
      for (int64_t x = s.count[j + 1]; x < s.count[j + 2]; x++, since++) {
        const int32_t i = s.by_k[x];
        for (int c = 0; c < VC; c++) sum[c] += load(grad + i * skip + c * W) * s.u1[i];
        if (since % 64 == 63) for (int c = 0; c < VC; c++) { base[c] += sum[c]; sum[c] = vf{}; }
      }
      vf t[1] = {vf{}};
      float dot;
      for (int c = 0; c < VC; c++) {
        const vf whole = base[c] + sum[c];
        t[0] += load(value + s.order[j] * stride + c * W) * whole;
        store(up + j * C + c * W, whole);
      }
      lane_sums<1>(t, &dot);
      s.z1[j] += dot;
    }
    for (int c = 0; c < VC; c++) base[c] = sum[c] = vf{};
    since = 0;
    for (int64_t j = 0; j < n; j++) {
      for (int64_t x = s.count[j]; x < s.count[j + 1]; x++, since++) {
        const int32_t i = s.by_k[x];
        for (int c = 0; c < VC; c++) sum[c] += load(grad + i * skip + c * W) * s.u2[i];
        if (since % 64 == 63) for (int c = 0; c < VC; c++) { base[c] += sum[c]; sum[c] = vf{}; }
      }
      vf t[1] = {vf{}};
      float dot;
      for (int c = 0; c < VC; c++) {
        const vf whole = base[c] + sum[c];
        t[0] += load(value + s.order[j] * stride + c * W) * whole;
        store(dvalue + s.order[j] * stride + c * W, load(up + j * C + c * W) * s.e1[j] + whole * s.e2[j]);
      }
      lane_sums<1>(t, &dot);
      s.z2[j] += dot;
    }
  }
};
template <template <int, class> class Step, class T>
static inline void over_columns(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h) {
  const int64_t vectors = p.C / W;
  for (int64_t at = 0; at < vectors; at += 4) switch (vectors - at) {
      case 1: Step<1, T>::run(p, r, s, b, h, at * W); break;
      case 2: Step<2, T>::run(p, r, s, b, h, at * W); break;
      case 3: Step<3, T>::run(p, r, s, b, h, at * W); break;
      default: Step<4, T>::run(p, r, s, b, h, at * W); break;
    }
}

template <class T, int P>
static void linear_backward(const Problem &p, const Relation &r, Sorted &s, int64_t b, int64_t h) {
  const Type &from = p.type[r.source], &to = p.type[r.target];
  const int64_t n = from.ptr[b + 1] - from.ptr[b], m = to.ptr[b + 1] - to.ptr[b];
  float *dquery = to.dquery + ((int64_t)to.ptr[b] * to.Q + r.enters) * P + h;
  float *dkey = from.dkey + ((int64_t)from.ptr[b] * from.R + r.leaves) * P + h;
  if (!n || !m) {
    for (int64_t i = 0; i < m; i++) dquery[i * to.Q * P] = 0;
    for (int64_t j = 0; j < n; j++) {
      dkey[j * from.R * P] = 0;
      memset((T *)from.dvalue + ((from.ptr[b] + j) * from.R + r.leaves) * p.H * p.C + h * p.C, 0, p.C * sizeof(T));
    }
    return;
  }
  weigh<P>(p, r, s, b, h);
  memset(s.part.reserve(2 * m), 0, 2 * m * sizeof(float));
  over_columns<LinearMean, T>(p, r, s, b, h);
  float *mean = s.mean.reserve(m);
  for (int64_t i = 0; i < m; i++) {
    const float u1 = s.u1[i], u2 = s.u2[i], d1 = s.part[2 * i], d2 = s.part[2 * i + 1];
    mean[i] = u1 * d1 + u2 * d2;
    dquery[i * to.Q * P] = u1 * (d1 - mean[i] * s.z1[s.k[i]]) + p.slope * u2 * (d2 - mean[i] * s.z2[s.k[i]]);
  }
  // targets by k: count[k] … count[k + 1] of by_k have k_i = k
  int32_t *count = s.count.reserve(n + 3), *by_k = s.by_k.reserve(m + 1);
  memset(count, 0, (n + 3) * sizeof(int32_t));
  for (int64_t i = 0; i < m; i++) count[s.k[i] + 2]++;
  for (int64_t j = 2; j < n + 3; j++) count[j] += count[j - 1];
  for (int64_t i = 0; i < m; i++) by_k[count[s.k[i] + 1]++] = i;
  memset(s.z1.data, 0, n * sizeof(float));
  memset(s.z2.data, 0, n * sizeof(float));
  over_columns<LinearSource, T>(p, r, s, b, h);
  // dkey_j = e1_j Σ_{k_i > j} u1_i (g_i·v_j − mean_i) + slope e2_j Σ_{k_i ≤ j} u2_i (g_i·v_j − mean_i)
  float base = 0, sum = 0;
  int64_t since = 0;
  for (int64_t j = n - 1; j >= 0; j--) {
    for (int64_t x = count[j + 1]; x < count[j + 2]; x++, since++) {
      sum += s.u1[by_k[x]] * mean[by_k[x]];
      if (since % 64 == 63) { base += sum; sum = 0; }
    }
    s.z1[j] = s.e1[j] * (s.z1[j] - (base + sum));
  }
  base = sum = 0;
  since = 0;
  for (int64_t j = 0; j < n; j++) {
    for (int64_t x = count[j]; x < count[j + 1]; x++, since++) {
      sum += s.u2[by_k[x]] * mean[by_k[x]];
      if (since % 64 == 63) { base += sum; sum = 0; }
    }
    dkey[s.order[j] * from.R * P] = s.z1[j] + p.slope * s.e2[j] * (s.z2[j] - (base + sum));
  }
}

// Adds the dense relations to what `forward` wrote.
template <class T, int P> static void linear(const Problem &p, bool back) {
  bool any = false;
  for (int64_t r = 0; r < p.relations; r++) any |= p.relation[r].linear;
  if (!any) return;
#pragma omp parallel num_threads(p.threads)
  {
    Sorted s;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < p.B * P; task++)
      for (int64_t r = 0; r < p.relations; r++) {
        const Relation &x = p.relation[r];
        const int64_t b = task / P, h = task % P;
        const Type &from = p.type[x.source], &to = p.type[x.target];
        if (!x.linear) continue;
        if (h >= p.H) {  // padding of the heads
          if (back) {
            for (int64_t i = to.ptr[b]; i < to.ptr[b + 1]; i++) to.dquery[(i * to.Q + x.enters) * P + h] = 0;
            for (int64_t j = from.ptr[b]; j < from.ptr[b + 1]; j++) from.dkey[(j * from.R + x.leaves) * P + h] = 0;
          }
        } else if (back) {
          linear_backward<T, P>(p, x, s, b, h);
        } else if (from.ptr[b + 1] > from.ptr[b]) {
          weigh<P>(p, x, s, b, h);
          over_columns<LinearForward, T>(p, x, s, b, h);
        }
      }
  }
}
