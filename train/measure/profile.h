#pragma once
// `burrow train CONFIG --profile`: time and memory of a training step by kernel, compared with the GEMM peak.
#include "train/run/trainer.h"

namespace burrow::train {

struct ProfileOptions {
  double seconds = 6;   // minimum total time of the measured steps
  std::string json;     // file to which the figures are written; empty: none
  std::string batches;  // file for write_batches; empty: none
};

inline constexpr int64_t kProfiledSteps = 4;  // first steps of the training plan, which are run repeatedly

// Trains on the first steps of the plan without writing files of a run, and prints a report to stdout.
void profile(Trainer& trainer, const Setup& setup, const ProfileOptions& options);

// Writes the steps' inputs for other programs: every tensor of the model under its name, and ids, positions,
// offsets, features, supervised and targets of the first kProfiledSteps batches as "batch.I.NAME".
void write_batches(const std::string& path, Trainer& trainer, const Setup& setup);

// FLOP/s of a product of f32 matrices of 1024 x 1024 on all threads, the fastest of several runs.
double measured_gemm_peak(Device device = Device::cpu);

}  // namespace burrow::train
