// Products with 9 to 64 rows: bound by the weights' bytes, so deep rings and columns shared by warpgroups.
#include "device/cuda/hopper/gemm/gemm.cuh"

STEELYARD_ROWS(gemm_16_1, 16, 1, 4)
STEELYARD_ROWS(gemm_16_2, 16, 2, 2)
STEELYARD_ROWS(gemm_16_4, 16, 4, 1)
STEELYARD_ROWS(gemm_32_2, 32, 2, 2)
STEELYARD_ROWS(gemm_32_4, 32, 4, 1)
STEELYARD_ROWS(gemm_64_2, 64, 2, 2)
STEELYARD_ROWS(gemm_64_4, 64, 4, 1)
