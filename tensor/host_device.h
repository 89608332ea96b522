#pragma once
// BURROW_HD marks functions that are compiled for host and device: the arithmetic that both backends share.
#ifdef __CUDACC__
#define BURROW_HD __host__ __device__
#else
#define BURROW_HD
#endif
