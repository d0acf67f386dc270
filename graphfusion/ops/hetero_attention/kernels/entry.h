#pragma once
#include <stdint.h>
int call_baseline(const int64_t *, const double *, int);
int call_avx2(const int64_t *, const double *, int);
int call_avx512(const int64_t *, const double *, int);
