#pragma once
// `burrow train CONFIG --profile`: what a step costs and where its time goes, beside the machine's GEMM peak.
#include "train/run/trainer.h"

namespace burrow::train {

struct ProfileOptions {
  double seconds = 6;   // of measured steps, at least kProfiledSteps of them
  std::string json;     // file for the figures; empty: none
  std::string batches;  // file for the model and the steps' batches (write_batches); empty: none
};

inline constexpr int64_t kProfiledSteps = 4;  // the first of the plan, taken round and round

// Trains on the first steps of the plan, in memory only, and prints the report to stdout.
void profile(Trainer& trainer, const Setup& setup, const ProfileOptions& options);

// What another program needs to do the same work: every tensor of the model under its name, and of the first
// kProfiledSteps steps' batches ids, positions, offsets, features, supervised and targets, as "batch.I.NAME".
void write_batches(const std::string& path, Trainer& trainer, const Setup& setup);

// FLOP/s of the product of two square f32 matrices of 1024, the fastest of a few on all threads.
double measured_gemm_peak(Device device = Device::cpu);

}  // namespace burrow::train
