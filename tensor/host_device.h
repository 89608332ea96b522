#pragma once
// BURROW_HD marks functions that both compilers see: the arithmetic that the two backends share.
#ifdef __CUDACC__
#define BURROW_HD __host__ __device__
#else
#define BURROW_HD
#endif
