// Four lanes: what every x86-64 and every 64-bit ARM has.
#define W 4
#define NAME baseline
#define CALL call_baseline
#include "width.h"
