// Writes the three instruction domains.
#include "data/worlds/make.h"

#include "data/json.h"
#include "data/worlds/make_files.h"
#include "tensor/files.h"

namespace burrow::data {
namespace fs = std::filesystem;
namespace {

// Sample `index` of a split: draws scenes until one yields a question.
std::string make_sample(const fs::path& images, Domain domain, const char* split, int64_t index,
                        const Codes& codes, const MakeOptions& options) {
  Random random = random_of(options.seed, fmt::format("data/{}/{}", name_of(domain), split), index);
  Image image;
  std::optional<Question> question;
  while (!question) {
    const Scene scene = draw_scene(random, domain, image);
    for (int tries = 0; tries < 100 && !question; ++tries)
      question = ask(random, scene, codes, options.knowledge_percent);
  }
  const std::string file = fmt::format("{}/{:06}.png", split, index);
  write_png(images / file, image);
  return record_line(fmt::format("{}-{}-{:06}", name_of(domain), split, index), file, *question);
}

void make_domain(const fs::path& work, Domain domain, const MakeOptions& options, const Progress& progress) {
  const Codes codes = knowledge_codes(options.seed, domain);
  for (const Split& split : splits_of(options)) {
    const fs::path images = work / "images";
    fs::create_directories(images / split.name);
    write_list(
        work / fmt::format("{}.json", split.name), split.samples, options.threads,
        fmt::format("{}/{}", name_of(domain), split.name),
        [&](int64_t i) { return make_sample(images, domain, split.name, i, codes, options); }, progress);
  }
}

}  // namespace

bool make_domains(const fs::path& dir, const MakeOptions& options, const Progress& progress) {
  BURROW_CHECK(sound({options.train, options.validation, options.test}) && options.threads > 0 &&
                   options.knowledge_percent >= 0 && options.knowledge_percent <= 100,
               "[make] train {}, validation {}, test {}, threads {}, knowledge_percent {}: out of range",
               options.train, options.validation, options.test, options.threads, options.knowledge_percent);
  const nlohmann::json values = {{"seed", options.seed},
                                 {"train", options.train},
                                 {"validation", options.validation},
                                 {"test", options.test},
                                 {"knowledge_percent", options.knowledge_percent}};
  const MakeLock lock(dir);
  return make_all(dir, make_manifest("domains", values), scene_tokenizer(), [&] {
    bool made = false;
    for (const Domain domain : domains)
      made |= make_folder(dir, name_of(domain), make_manifest(name_of(domain), values),
                          [&](const fs::path& work) { make_domain(work, domain, options, progress); });
    return made;
  });
}

}  // namespace burrow::data
