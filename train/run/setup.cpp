#include "train/run/setup.h"

#include <algorithm>

#include "tensor/files.h"
#include "train/run/checkpoint.h"

namespace burrow::train {

bool Setup::converses() const {
  return std::any_of(config.data.sets.begin(), config.data.sets.end(),
                     [](const DataSet& d) { return d.format == data::Format::llava; });
}

namespace {

// Loads the tokenizer, replaces a vocabulary of 0 by its size, and checks vocabulary and chat template
// against it.
void load_tokenizer(Setup& s) {
  const DataConfig& data = s.config.data;
  s.tokenizer = data::Tokenizer::load(data.tokenizer);
  int64_t& vocabulary = s.config.model.sizes.decoder.vocabulary;
  if (vocabulary == 0) vocabulary = s.tokenizer.size();
  BURROW_CHECK(s.tokenizer.size() <= vocabulary, "{}: {} tokens, but model.decoder.vocabulary is {}",
               data.tokenizer, s.tokenizer.size(), vocabulary);
  const auto& chat = data::ChatTemplate::by_name(data.chat);
  if (s.converses()) chat.check(s.tokenizer);
}

// Loads the projector from a file and adds the file's bytes to the hash.
void load_projector(const std::string& file, nn::Llava& model, uint64_t& hash) {
  const SafetensorsFile read = read_safetensors(file);
  model.projector->parameters([&](const nn::Parameter& p) {
    const auto found = read.tensors.find(p.name);
    BURROW_CHECK(found != read.tensors.end(), "{}: no tensor '{}': the file has no projector", file, p.name);
    BURROW_CHECK(found->second.shape() == p.var->shape(), "{}: '{}' has shape {}, expected {}", file, p.name,
                 found->second.shape(), p.var->shape());
    *p.var = Var(found->second.to(p.var->value().dtype()).clone());
  });
  hash = hash_bytes(MappedFile::open(file)->bytes(), hash);
}

}  // namespace

Setup make_setup(const RunConfig& config, bool shapes_only, Device device) {
  Setup s{config, {}, nullptr, {}, 0};
  nn::ModelConfig& sizes = s.config.model.sizes;
  if (!shapes_only || !config.data.tokenizer.empty()) load_tokenizer(s);
  const DType dtype = config.model.dtype == "f64"    ? DType::f64
                      : config.model.dtype == "bf16" ? DType::bf16
                                                     : DType::f32;
  const auto seed = static_cast<uint64_t>(config.train.seed);
  if (shapes_only) {
    s.model = std::make_unique<nn::Llava>(sizes, *nn::shapes_only(dtype));
  } else if (config.model.weights.empty()) {
    s.model = std::make_unique<nn::Llava>(sizes, *nn::random_weights(seed, dtype));
  } else {
    nn::FileWeights weights(config.model.weights, dtype);
    s.model = std::make_unique<nn::Llava>(sizes, weights);
    weights.finish();
    s.weights_hash = hash_bytes(MappedFile::open(config.model.weights)->bytes());
  }
  if (!config.model.projector.empty() && !shapes_only)
    load_projector(config.model.projector, *s.model, s.weights_hash);
  s.attachment = moe::attach(*s.model, config.method, seed);
  if (config.model.compute == "bf16") {
    BURROW_CHECK(shapes_only || device == Device::cuda,
                 "model.compute = 'bf16': the CPU computes in f32 and f64; use --device cuda");
    s.model->compute = DType::bf16;
  }
  if (!shapes_only) s.model->move_to(device);
  return s;
}

Setup load_run(const std::string& run, Device device) {
  const auto folder = std::filesystem::path(run);
  const std::filesystem::path trained = folder / "trained.safetensors";
  BURROW_CHECK(std::filesystem::exists(trained), "{}: no trained.safetensors: not a finished run", run);
  Setup setup = make_setup(read_run_config((folder / "config.toml").string(), {}), false, device);
  // trained.safetensors of `burrow factorize` is model.weights itself, which make_setup has read.
  const std::string& weights = setup.config.model.weights;
  if (weights.empty() || !std::filesystem::exists(weights) || !std::filesystem::equivalent(weights, trained))
    load_trained(trained.string(), setup.attachment.trainable);
  setup.model->move_to(device);  // load_trained reads to the CPU
  return setup;
}

namespace {

std::vector<DataSet> chosen_sets(const DataConfig& c, const std::vector<std::string>& names) {
  if (names.empty()) return c.sets;
  std::vector<DataSet> sets;
  for (const std::string& name : names) {
    const auto found =
        std::find_if(c.sets.begin(), c.sets.end(), [&](const DataSet& d) { return d.name == name; });
    BURROW_CHECK(found != c.sets.end(), "data.sets: no set named '{}' among data.sets", name);
    sets.push_back(*found);
  }
  return sets;
}

}  // namespace

const std::string& file_of(const DataSet& set, Split split) {
  return split == Split::train ? set.train : split == Split::validation ? set.validation : set.test;
}

std::vector<data::Dataset> load_sets(const Setup& setup, Split split, const std::vector<std::string>& names) {
  std::vector<data::Dataset> sets;
  const RunConfig& c = setup.config;
  for (const DataSet& d : chosen_sets(c.data, names)) {
    const std::string& file = file_of(d, split);
    BURROW_CHECK(!file.empty() || names.empty(), "data.sets: '{}' has no file for the requested split",
                 d.name);
    if (file.empty()) continue;
    data::DatasetSettings settings;
    settings.name = d.name;
    settings.file = file;
    settings.format = d.format;
    settings.supervision = c.data.loss;
    settings.images = d.images;
    settings.circular = d.circular && split != Split::train;
    settings.chat = c.data.chat;
    settings.visual_tokens = c.model.sizes.vision.visual_tokens();
    settings.max_tokens = c.model.sizes.decoder.max_tokens;
    sets.push_back(data::Dataset::load(settings, setup.tokenizer));
    BURROW_CHECK(c.model.sizes.vision.present() || sets.back().images().empty(),
                 "{}: the records have images, but model.vision.layers is 0: the model reads text only",
                 file);
  }
  BURROW_CHECK(!sets.empty(), "data.sets: no data set has a file for the requested split");
  return sets;
}

}  // namespace burrow::train
