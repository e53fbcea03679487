PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes with a thread each: with more, torch's threads wait for each other.
TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test test-slow test-distributed test-fuzz test-batch test-browser test-openvino \
  test-bids test-dicom test-cluster test-panoptica test-label test-onnx test-deploy test-package test-container lint \
  bench bench-others clean

# The environment is made once, and again when a requirement changes.
$(BIN)/.ready: requirements.txt requirements/dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -r requirements/dev.txt
	touch $@

demo: $(BIN)/.ready  ## segment simulated lesions in the MNI head, and show how well
	$(BIN)/python -m scripts.demo demo

test: $(BIN)/.ready  ## style, types and the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(TWO) -m "not (slow or distributed or batch or browser or openvino or bids or dicom or cluster or panoptica or label or onnx or deploy or package or container)"

test-slow: $(BIN)/.ready  ## cohorts simulated, trainings to their end, the longer commands
	$(TWO) -m slow

test-browser: $(BIN)/.ready  ## the report and its views in Chromium, offline
	$(BIN)/python -m pytest -m browser

test-distributed: $(BIN)/.ready  ## two processes against one
	$(BIN)/python -m pytest -m distributed

test-fuzz: $(BIN)/.ready  ## 10,000 damaged images, labels, lists, settings, records and DICOM files
	FUZZ_MUTATIONS=10000 $(BIN)/python -m pytest tests/volumes/test_fuzz.py tests/volumes/test_fuzz_others.py

test-batch: $(BIN)/.ready  ## a folder of 88 files and three kills; copies of one head
	$(BIN)/python -m pytest -m batch

test-openvino: $(BIN)/.ready  ## the OpenVINO backend, which stays installed
	$(BIN)/pip install --quiet -r requirements/openvino.txt
	$(BIN)/python -m pytest -m openvino

test-bids: $(BIN)/.ready  ## results against the BIDS validator, in an environment of its own
	$(PYTHON) -m venv .venv-bids
	.venv-bids/bin/pip install --quiet -r requirements/bids.txt
	$(BIN)/python -m pytest -m bids

test-dicom: $(BIN)/.ready  ## DICOM in and out, a receiver beside a real Orthanc; packages and Orthanc stay installed
	$(BIN)/pip install --quiet -r requirements/dicom.txt
	@command -v Orthanc >/dev/null || command -v /usr/sbin/Orthanc >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y orthanc; } || { echo "Orthanc is missing: as root, apt-get install orthanc" >&2; exit 1; }
	$(BIN)/python -m pytest -m dicom

test-cluster: $(BIN)/.ready  ## two Ray nodes in a network of their own; Ray stays installed
	$(BIN)/pip install --quiet -r requirements/ray.txt
	$(BIN)/python -m pytest -m cluster

test-panoptica: $(BIN)/.ready  ## lesion F1 against panoptica, which needs an older NumPy
	$(PYTHON) -m venv .venv-panoptica
	.venv-panoptica/bin/pip install --quiet -r requirements/panoptica.txt
	$(BIN)/python -m pytest -m panoptica

test-label: $(BIN)/.ready  ## a real MONAI Label server, which needs older packages, with the packaged bundle
	$(PYTHON) -m venv .venv-label
	.venv-label/bin/pip install --quiet -r requirements/label.txt
	$(BIN)/python -m pytest -m label

test-package: $(BIN)/.ready  ## the packaged bundle in a fresh environment with the packages that it declares
	$(BIN)/python -m pytest -m package

test-onnx:  ## the ONNX export, in an environment of its own
	$(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/pip install --quiet -r requirements/onnx.txt
	.venv-onnx/bin/python -m pytest tests/package/test_onnx.py -m onnx

test-deploy:  ## an application of the MONAI Deploy App SDK, in an environment of its own
	$(PYTHON) -m venv .venv-deploy
	.venv-deploy/bin/pip install --quiet -r requirements/deploy.txt
	.venv-deploy/bin/python -m pytest tests/deploy -m deploy

test-container: $(BIN)/.ready  ## the steps of the containers' recipes, in a fresh environment without a network
	$(BIN)/python -m pytest -m container

lint: $(BIN)/.ready
	$(BIN)/ruff check . --fix
	$(BIN)/ruff format .
	$(BIN)/mypy

bench: $(BIN)/.ready  ## speed on this machine, half an hour; COHORT is a simulated test set: docs/performance.md
	$(BIN)/pip install --quiet -r requirements/openvino.txt
	$(BIN)/python -m benchmarks.backends
	$(BIN)/python -m benchmarks.volumes
	$(BIN)/python -m benchmarks.many_volumes docs/many_whole.png --count 100 --whole
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.masks $(COHORT)
	$(BIN)/python -m benchmarks.page

bench-others:  ## nnU-Net and others on this machine, in an environment of their own, before make bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet -r requirements/bench.txt
	.venv-bench/bin/python -m benchmarks.others

clean:
	rm -rf $(VENV) .venv-bench .venv-bids .venv-deploy .venv-label .venv-onnx .venv-panoptica demo runs
