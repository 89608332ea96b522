// factorize: splits the FFNs of a dense decoder into blocks with a router each (FactorLLM, arXiv 2408.11855).
#include <fmt/format.h>

#include <filesystem>

#include "moe/shards.h"
#include "tensor/files.h"
#include "tensor/rng.h"
#include "train/commands/commands.h"
#include "train/run/checkpoint.h"
#include "train/run/setup.h"

namespace burrow::train {
namespace {

// `model`: a run of method full, or a config with model.weights.
struct FactorizeCommand {
  std::string model, out, split = "contiguous";
  int64_t experts = 4, top_k = 1, seed = 0;
};

// The dense model of a run with method full, or of a config with model.weights.
Setup dense_model(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    Setup run = load_run(path);
    BURROW_CHECK(
        run.config.method.full,
        "{}: a run of method '{}', which trains beside a model; factorize takes a run of method 'full', or a "
        "config with model.weights",
        path, run.config.method.name);
    return run;
  }
  RunConfig config = read_run_config(path, {});
  BURROW_CHECK(!config.model.weights.empty(), "{}: model.weights is empty: there is no model to factorize",
               path);
  config.method = moe::method("full");
  return make_setup(config);
}

int run_factorize(const FactorizeCommand& c) {
  const std::filesystem::path out(c.out);
  BURROW_CHECK(!std::filesystem::exists(out), "{}: exists already; choose another --out", c.out);
  const moe::Split split = value_named<moe::Split>("--split", c.split);
  moe::MethodConfig method = moe::method("factorllm");
  method.experts = c.experts;
  method.router.top_k = c.top_k;
  moe::check(method);
  Setup dense = dense_model(c.model);
  const nn::DecoderConfig& sizes = dense.config.model.sizes.decoder;
  BURROW_CHECK(sizes.mlp_width % c.experts == 0,
               "--experts {}: does not cut the {} channels of each FFN evenly", c.experts, sizes.mlp_width);
  const auto seed = static_cast<uint64_t>(c.seed);
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (nn::DecoderBlock& block : dense.model->decoder.blocks) {
    nn::FeedForward& ffn = *block.ffn;
    moe::reorder(ffn, moe::split_order(ffn.gate_proj().weight.value(), c.experts, split,
                                       random_key(seed, 0, ffn.name + ".split")));
    moe::Router router(ffn.name + ".router", 0, sizes.width, c.experts, method, DType::f32, seed);
    router.parameters([&](const nn::Parameter& p) { tensors.emplace_back(p.name, p.var->value()); });
  }
  dense.model->parameters([&](const nn::Parameter& p) { tensors.emplace_back(p.name, p.var->value()); });
  std::filesystem::create_directories(out);
  const std::filesystem::path weights = out / "trained.safetensors";
  write_safetensors(weights.string(), tensors,
                    {{"ffn_experts", std::to_string(c.experts)}, {"ffn_split", c.split}});
  RunConfig config = dense.config;
  config.method = method;
  config.model.weights = weights.string();
  write_file_atomically((out / "config.toml").string(), write_run_config(config));
  fmt::print("{}: {} FFNs of {} channels in {} blocks of {} ({}), {} of them per token; a router each\n",
             c.out, sizes.layers, sizes.mlp_width, c.experts, sizes.mlp_width / c.experts, c.split, c.top_k);
  return 0;
}

}  // namespace

void add_factorize(Command& app) {
  auto [cut, c] = app.command("factorize",
                              "Cut a dense decoder's FFNs into blocks with a router each (FactorLLM); the "
                              "folder that it writes is read by train (its config.toml), eval and ask",
                              run_factorize);
  cut.option("model", c.model, "run directory of method full, or TOML file with model.weights");
  cut.option("--out", c.out, "folder to write", {.required = true});
  cut.option("--experts", c.experts, "blocks of each FFN", {.show_default = true, .range = kPositive});
  cut.option("--top-k", c.top_k, "blocks that a token passes through",
             {.show_default = true, .range = kPositive});
  cut.option("--split", c.split, "contiguous, random or clustered", {.show_default = true});
  cut.option("--seed", c.seed, "of the routers and of the split", {.range = {0, INT64_MAX}});
}

}  // namespace burrow::train
